// SPDX-License-Identifier: Apache-2.0
/*
 * The relay: stands in the CNI bin directory under a plugin's name and passes a call on to the node's agent.
 *
 * Without an agent, or where the agent says so, it becomes PLUGIN.standalone beside itself, which needs none. It is C because a Python
 * takes longer to start than the whole call, and has neither printf nor malloc because those would be most of it.
 *
 *   request: "kn1\0" PLUGIN "\0" { KEY "=" VALUE "\0" } "\0" STDIN, end of file; all variables named CNI_*,
 *            NODE_ANNOTATION_CFG and TRACEPARENT
 *   answer:  STATUS STDOUT, end of file; STATUS 0 or 1 is the exit code; 2 means "not mine, run it locally", and STDOUT is the error
 *            where that cannot be done
 */
#define _GNU_SOURCE /* memfd_create */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "unknown"
#endif
#define ADD_LIMIT 15 /* s for an ADD, and for the runtime to close our stdin */
#define LIMIT 3      /* s for other commands, and to connect: the standalone then takes 12 at most */
#define ABSENCE 10   /* s that an ADD or STATUS waits for an agent that is being replaced, where nobody else can serve */
#define PAUSE 50     /* thousandths of a second between looks for it */
#ifndef SECOND       /* shorter in tests, with smaller limits in the fuzzer */
#define SECOND 1000          /* ms */
#define STDIN_LIMIT 4194304  /* bytes */
#define ANSWER_LIMIT 4194304 /* bytes */
#define HEADER_LIMIT 6291456 /* bytes; Linux allows no larger environment */
#define SHOWN 4096           /* bytes of a string that an error shows; one byte takes six at most */
#endif
#define LITERAL(number) #number
#define IN_WORDS(macro) LITERAL(macro)
#define ADVICE "start the agent, or install PLUGIN.standalone, kube-node.lib and the Python that they were built with"

enum { LOCALLY = 2 }; /* statuses above 1 */

/* Bytes that are filled from the left, with a NUL behind them. */
struct text {
    size_t size, limit;
    char *bytes;
};
#define ROOM_FOR(limit) {0, limit, (char[(limit) + 1]){0}}

/* Large, but memory only as far as it is written to. */
static struct text request = {0, HEADER_LIMIT, (char[HEADER_LIMIT + STDIN_LIMIT + 1]){0}}; /* the limit is add()'s; stdin follows */
static struct text answer = ROOM_FOR(ANSWER_LIMIT);
static struct text error = ROOM_FOR(16 * 6 * SHOWN);
static struct text socket_path = ROOM_FOR(SHOWN);
static struct text standalone = ROOM_FOR(SHOWN);
static struct text self = ROOM_FOR(SHOWN); /* the file that runs, symbolic links resolved; empty without /proc */

/* Append bytes. False where they do not fit, and then nothing is appended. */
static bool add(struct text *text, const char *bytes, size_t size)
{
    if (size > text->limit - text->size) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = 0;
    return true;
}

static bool add_string(struct text *text, const char *string) { return add(text, string, strlen(string)); }

static long long now(void) /* ms */
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Wait for one of these events. Returns those that came and errors, 0 where none came until the deadline. */
static short wait_for(int fd, short events, long long deadline)
{
    for (;;) {
        struct pollfd file = {.fd = fd, .events = events};
        long long left = deadline - now();
        int count = poll(&file, 1, left > 0 ? (int)left : 0);
        if (count > 0)
            return file.revents;
        if (count == 0 ? left <= 0 : errno != EINTR)
            return 0;
    }
}

static bool again(void) { return errno == EINTR || errno == EAGAIN; }

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t count = write(fd, bytes, size);
        if (count > 0) {
            bytes += count;
            size -= (size_t)count;
        } else if (count == 0 || !again()) {
            return false;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        }
    }
    return true;
}

/* Print on stdout and end. */
static _Noreturn void finish(int exit_code, const char *bytes, size_t size)
{
    signal(SIGPIPE, SIG_IGN); /* only here: a standalone has to start with it as we did */
    if (!write_all(1, bytes, size)) {
        const char *text = "relay: cannot write the answer to stdout\n";
        write_all(2, text, strlen(text));
        exit_code = 1;
    }
    _exit(exit_code);
}

/* Return the length of the well-formed UTF-8 character (RFC 3629) that begins here, 0 where none does. */
static size_t utf8_length(const unsigned char *at)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
    /* What is longer than need be, surrogates, and what is beyond U+10FFFF. */
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* Append the inside of a JSON string. Paths may hold any byte; JSON text is UTF-8. */
static void add_quoted(struct text *text, const char *string)
{
    const unsigned char *at = (const unsigned char *)string, *end = at + SHOWN;
    while (*at && at < end) {
        size_t length = utf8_length(at);
        if (length == 0)
            add_string(text, "\\ufffd");
        else if (*at == '"' || *at == '\\')
            add(text, (char[]){'\\', (char)*at}, 2);
        else if (*at < ' ')
            add(text, (char[]){'\\', 'u', '0', '0', *at < 16 ? '0' : '1', "0123456789abcdef"[*at % 16]}, 6);
        else
            add(text, (const char *)at, length);
        at += length ? length : 1;
    }
}

/* Answer with a CNI error object, whose msg has these parts (the last is NULL), and end. */
static _Noreturn void fail(const char *code, const char *details, const char *const *msg)
{
    add_string(&error, "{\"cniVersion\": \"1.1.0\", \"code\": ");
    add_string(&error, code);
    add_string(&error, ", \"msg\": \"");
    for (; *msg; msg++)
        add_quoted(&error, *msg);
    add_string(&error, "\", \"details\": \"");
    add_quoted(&error, details);
    add_string(&error, "\"}\n");
    finish(1, error.bytes, error.size);
}
#define FAIL(code, details, ...) fail(code, details, (const char *const[]){__VA_ARGS__, NULL})

static const char *variable(const char *name, const char *otherwise) /* otherwise: where it is not set, or empty */
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Become the standalone plugin. Returns where there is none; `standalone` is then where it was looked for last, errno why not. */
static void run_locally(const char *plugin, char **argv)
{
    const char *const places[] = {argv[0], self.bytes};
    for (size_t i = 0; i < 2; i++) {
        size_t directory = (size_t)(base_name(places[i]) - places[i]);
        if (directory == 0 && standalone.size > 0)
            break;
        standalone.size = 0;
        errno = ENOENT;
        if (add(&standalone, places[i], directory) && add_string(&standalone, plugin) && add_string(&standalone, ".standalone") && directory)
            execve(standalone.bytes, argv, environ);
    }
}

/* A person runs it: all commands are the standalone's. */
static _Noreturn void run_by_hand(const char *plugin, char **argv)
{
    run_locally(plugin, argv);
    const char *reason = strerror(errno);
    if (argv[1] && !strcmp(argv[1], "--version"))
        finish(0, VERSION "\n", strlen(VERSION "\n"));
    const char *const parts[] = {plugin, " of kube-node " VERSION ": passes what a container runtime asks on to the agent at ", socket_path.bytes,
                                 ".\nThe commands are in ", standalone.bytes, ", which cannot be run: ", reason, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        write_all(2, parts[i], strlen(parts[i]));
    _exit(1);
}

/* Move a file away from 0, 1 and 2, where those were closed: it would be taken for stdin or stdout. */
static int not_standard(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return moved;
}

/* Return the connection to the agent, -1 where there is none. A full queue must not block us for ever. */
static int reach_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long long end = now() + LIMIT * SECOND;
    struct timeval limit = {.tv_sec = LIMIT * SECOND / 1000, .tv_usec = LIMIT * SECOND % 1000 * 1000};
    if (socket_path.size >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, socket_path.bytes, socket_path.size);
    int agent = not_standard(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (agent < 0 || setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
        return -1;
    while (connect(agent, (struct sockaddr *)&address, sizeof address))
        if (errno != EINTR || now() > end) {
            int reason = errno;
            close(agent);
            errno = reason;
            return -1;
        }
    return agent;
}

/* Wait for an agent to listen: there is none while it is replaced. Returns as reach_agent. */
static int await_agent(long long deadline)
{
    int agent;
    do {
        wait_for(-1, 0, now() + PAUSE * SECOND / 1000);
        agent = reach_agent();
    } while (agent < 0 && (errno == ENOENT || errno == ECONNREFUSED) && now() < deadline);
    return agent;
}

/* Begin the request with all that comes before stdin. */
static bool add_header(const char *plugin)
{
    bool fits = add(&request, "kn1", 4) && add(&request, plugin, strlen(plugin) + 1);
    for (char **entry = environ; fits && *entry; entry++)
        if (!strncmp(*entry, "NODE_ANNOTATION_CFG=", 20) || !strncmp(*entry, "TRACEPARENT=", 12) || (!strncmp(*entry, "CNI_", 4) && strchr(*entry, '=')))
            fits = add(&request, *entry, strlen(*entry) + 1);
    return fits && add(&request, "", 1);
}

static void add_stdin(long long deadline)
{
    size_t limit = request.size + STDIN_LIMIT;
    ssize_t count = isatty(0) ? 0 : 1; /* a person tries VERSION */
    while (count != 0) {
        if (!wait_for(0, POLLIN, deadline))
            FAIL("11", "the runtime has to close it", "stdin has no end within " IN_WORDS(ADD_LIMIT) " s");
        count = read(0, request.bytes + request.size, limit + 1 - request.size);
        if (count > 0)
            request.size += (size_t)count;
        else if (count < 0 && !again())
            FAIL("5", "stdin must be one JSON object", "cannot read stdin: ", strerror(errno));
        if (request.size > limit)
            FAIL("6", "stdin must be one network configuration", "stdin has more than " IN_WORDS(STDIN_LIMIT) " bytes");
    }
}

/* Say whether the answer has come whole: STDOUT is one object on a line, or nothing where others than ADD succeed. */
static bool is_whole(bool is_add)
{
    const char *end = answer.bytes + answer.size;
    if (answer.size > 1)
        return answer.bytes[1] == '{' && end[-2] == '}' && end[-1] == '\n';
    return answer.bytes[0] == LOCALLY || (answer.bytes[0] == 0 && !is_add);
}

/* Send the request and take the whole answer. Returns what is wrong with it, NULL where nothing is. */
static const char *ask(int agent, long long deadline, bool is_add)
{
    size_t sent = 0;
    ssize_t count = 1;
    /* Both ways at once: it may answer, and close, before it has read everything. */
    while (count != 0) {
        short events = wait_for(agent, sent < request.size ? POLLIN | POLLOUT : POLLIN, deadline);
        if (events == 0)
            return " does not answer in time";
        if (events & POLLOUT) {
            count = send(agent, request.bytes + sent, request.size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (count >= 0)
                sent += (size_t)count;
            else if (!again())
                sent = request.size; /* it reads no more, but what it has said is there to be read */
            if (sent == request.size)
                shutdown(agent, SHUT_WR);
        }
        count = 1;
        if (events & ~POLLOUT) {
            count = recv(agent, answer.bytes + answer.size, answer.limit - answer.size, MSG_DONTWAIT);
            if (count > 0)
                answer.size += (size_t)count;
            else if (count < 0 && !again())
                count = 0; /* a reset is an end, too; what has come before it counts */
            if (answer.size == answer.limit)
                return " answers without an end";
        }
    }
    if (answer.size == 0)
        return " is gone without an answer";
    return (unsigned char)answer.bytes[0] <= LOCALLY && is_whole(is_add) ? NULL : " is gone in the middle of its answer";
}

/* Say whether the agent is another container's: its process has no number in our PID namespace. */
static bool is_elsewhere(int agent)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return !getsockopt(agent, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.pid == 0;
}

/* A kubelet's probe, or a person, asks how the agent is: exit code 0, or 1 and why not. */
static _Noreturn void ask_how_it_is(const char *question)
{
    int agent = add_header(question) ? reach_agent() : -1;
    if (agent < 0)
        FAIL("11", "see the agent's log", "no agent at ", socket_path.bytes, " (", strerror(errno), ")");
    /* Ours waits for that one's end, and is well. If it were as ready as that one, a rollout could not replace what never gets ready. */
    if (is_elsewhere(agent))
        finish(0, "", 0);
    const char *trouble = ask(agent, now() + LIMIT * SECOND, false);
    if (trouble)
        FAIL("11", "see the agent's log", "the agent at ", socket_path.bytes, trouble);
    finish(answer.bytes[0] != 0, answer.bytes + 1, answer.size - 1);
}

/* Make what was read of stdin stdin once more. */
static void give_stdin_back(size_t header)
{
    int file = not_standard(memfd_create("stdin", MFD_CLOEXEC));
    if (file < 0 || !write_all(file, request.bytes + header, request.size - header) || lseek(file, 0, SEEK_SET) || dup2(file, 0))
        FAIL("5", "is the host out of memory?", "cannot hand stdin on to the standalone plugin: ", strerror(errno));
}

int main(int argc, char **argv)
{
    long long start = now();
    char *no_argv[] = {(char[]){""}, NULL}; /* Linux before 5.18 allows that */
    const char *command = variable("CNI_COMMAND", ""), *path = variable("KUBE_NODE_SOCKET", "");
    bool is_add = !strcmp(command, "ADD"), is_status = !strcmp(command, "STATUS");
    const char *unavailable = is_status ? "50" : "11";

    if (argc < 1)
        argv = no_argv;
    ssize_t length = readlink("/proc/self/exe", self.bytes, self.limit);
    self.bytes[length > 0 ? length : 0] = 0;
    const char *plugin = *base_name(argv[0]) ? base_name(argv[0]) : base_name(self.bytes);
    /* A path that is cut here is too long for a socket anyway. */
    if (!*path) {
        const char *directory = variable("KUBE_NODE_RUN_DIR", "/run/kube-node");
        add(&socket_path, directory, strnlen(directory, SHOWN / 2));
        path = "/agent.sock";
    }
    add(&socket_path, path, strnlen(path, SHOWN / 2));

    if (argc == 2 && (!strcmp(argv[1], "healthz") || !strcmp(argv[1], "readyz")))
        ask_how_it_is(argv[1]);
    if (argc > 1 || !*command)
        run_by_hand(plugin, argv);
    int agent = add_header(plugin) ? reach_agent() : -1;
    if (agent < 0) {
        int reason = errno;
        run_locally(plugin, argv);
        const char *why_not = strerror(errno);
        /* For a STATUS that fails the runtime calls the whole node not ready. */
        if ((is_add || is_status) && (reason == ENOENT || reason == ECONNREFUSED)) {
            agent = await_agent(start + ABSENCE * SECOND);
            reason = errno;
        }
        if (agent < 0)
            FAIL(unavailable, ADVICE, "no agent at ", socket_path.bytes, " (", strerror(reason), "), and ", standalone.bytes, " cannot be run: ",
                 why_not);
    }
    size_t header = request.size;
    add_stdin(start + ADD_LIMIT * SECOND);
    const char *trouble = ask(agent, is_add ? start + ADD_LIMIT * SECOND : now() + LIMIT * SECOND, is_add);
    if (!trouble && answer.bytes[0] != LOCALLY)
        finish(answer.bytes[0], answer.bytes + 1, answer.size - 1);
    if (trouble && is_add) /* it may have reserved already, or be about to: only the runtime's DEL makes that sure */
        FAIL("11", "the runtime calls DEL and tries again; see the agent's log", "the agent at ", socket_path.bytes, trouble);
    give_stdin_back(header);
    run_locally(plugin, argv);
    if (!trouble && answer.size > 1) /* why the agent could not do it */
        finish(1, answer.bytes + 1, answer.size - 1);
    FAIL(unavailable, ADVICE, "the agent at ", socket_path.bytes, trouble ? trouble : " leaves this call to others", ", and ", standalone.bytes,
         " cannot be run: ", strerror(errno));
}
