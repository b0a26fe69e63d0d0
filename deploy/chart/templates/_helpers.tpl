{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{/* What the agent's objects are found by. */}}
{{- define "kube-node.agent.labels" -}}
app.kubernetes.io/name: kube-node
app.kubernetes.io/component: agent
{{- end }}

{{/* What the controller's objects are found by. */}}
{{- define "kube-node.controller.labels" -}}
app.kubernetes.io/name: kube-node-controller
{{- end }}

{{/* The image of each container. A digest says more than a tag. */}}
{{- define "kube-node.image" -}}
image: "{{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag }}{{ end }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* The API server, where it has to be named: variables of each container. */}}
{{- define "kube-node.apiServer" -}}
{{- if .Values.apiServer.host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* Variables of both of the agent's containers. */}}
{{- define "kube-node.agent.environment" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
# For who asks in the container: kubectl exec POD -- kube-node status
- name: KUBE_NODE_HOST_ROOT
  value: /host
{{- with include "kube-node.apiServer" . }}
{{ . }}
{{- end }}
{{- end }}

{{/* All that a container may: nothing. */}}
{{- define "kube-node.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
