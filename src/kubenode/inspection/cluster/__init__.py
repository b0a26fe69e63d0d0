"""The cluster as its API server has it: whose an address is, and what is wrong. No node is asked, and nothing is changed."""
