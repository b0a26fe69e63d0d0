// SPDX-License-Identifier: Apache-2.0
/*
 * A libFuzzer target for the relay. What relay.c asks of the system is answered here, out of the fuzzer's bytes: what the agent says and
 * when, short reads and writes, interruptions, failures, the passing of time. Afterwards what it did is compared with what it may do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Small, so that the fuzzer gets to where they end. */
#define SECOND 1000
#define STDIN_LIMIT 300
#define ANSWER_LIMIT 200
#define HEADER_LIMIT 400
#define SHOWN 256

enum { AGENT = 10, MEMFD = 11, LOW = 2 };
enum outcome { EXITED = 1, BECAME_STANDALONE };

struct kept {
    size_t size;
    unsigned char bytes[1 << 16];
};

static const uint8_t *input, *input_end;
static jmp_buf back;
static char *environment[16];
static struct kept out, sent, received, given, memfd; /* given: what was read of stdin */
static bool connected, answered, given_all, half_closed, broken_out, rewound, stdin_is_memfd, send_failed;
static int exit_code, low; /* what lies on a file descriptor that should be closed, 0: nothing */
static long long clock_ms;

#define REQUIRE(condition)                                                                                                                 \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            fprintf(stderr, "fuzz.c:%d: not so: %s\n", __LINE__, #condition);                                                              \
            abort();                                                                                                                       \
        }                                                                                                                                  \
    } while (0)

static uint8_t next(uint8_t otherwise) { return input < input_end ? *input++ : otherwise; }

static void keep(struct kept *where, const void *bytes, size_t size)
{
    REQUIRE(size <= sizeof where->bytes - where->size);
    memcpy(where->bytes + where->size, bytes, size);
    where->size += size;
}

static ssize_t failed(int number)
{
    errno = number;
    return -1;
}

static char *string(char *room, size_t limit) /* of the input, to its next NUL */
{
    size_t size = 0;
    while (size + 1 < limit && (room[size] = (char)next(0)))
        size++;
    room[size] = 0;
    return room;
}

static char *fuzz_getenv(const char *name)
{
    size_t size = strlen(name);
    for (char **entry = environment; *entry; entry++)
        if (!strncmp(*entry, name, size) && (*entry)[size] == '=')
            return *entry + size + 1;
    return NULL;
}

static int fuzz_clock(clockid_t id, struct timespec *time)
{
    REQUIRE(id == CLOCK_MONOTONIC);
    *time = (struct timespec){.tv_sec = clock_ms / 1000, .tv_nsec = clock_ms % 1000 * 1000000};
    return 0;
}

static int fuzz_poll(struct pollfd *files, nfds_t count, int timeout)
{
    if (count == 1 && files->fd == -1) { /* a pause */
        REQUIRE(files->events == 0 && timeout >= 0 && timeout <= SECOND);
        clock_ms += timeout;
        return 0;
    }
    REQUIRE(count == 1 && (files->fd == 0 || files->fd == 1 || files->fd == 2 || files->fd == AGENT || files->fd == MEMFD));
    REQUIRE(timeout <= 15 * SECOND && (timeout >= 0 || files->events == POLLOUT));
    uint8_t what = next(0);
    if (what == 1)
        return (int)failed(EINTR);
    if (what == 2 && timeout >= 0) {
        clock_ms += timeout;
        return 0;
    }
    if (what == 3)
        clock_ms += 1000;
    if (what == 4 && timeout > 0) /* too early */
        return 0;
    files->revents = what == 5 ? files->events & POLLOUT : what == 6 ? files->events & POLLIN : files->events;
    if (what == 7)
        files->revents |= POLLHUP | POLLERR;
    if (files->revents == 0)
        files->revents = files->events;
    return 1;
}

/* Read out of the fuzzer's bytes: their end is the end. */
static ssize_t some(struct kept *kept, void *bytes, size_t size, bool *ended)
{
    uint8_t what = next(0);
    if (what == 0)
        *ended = true;
    if (what == 0 || what == 1 || what == 2)
        return what ? failed(what == 1 ? EINTR : EAGAIN) : 0;
    if (what == 3)
        return failed(kept == &received ? ECONNRESET : EIO);
    size_t count = what > 250 ? size : what > size ? size : what;
    for (size_t i = 0; i < count; i++)
        ((char *)bytes)[i] = (char)next((uint8_t)'x');
    keep(kept, bytes, count);
    return (ssize_t)count;
}

static ssize_t fuzz_read(int fd, void *bytes, size_t size)
{
    REQUIRE(fd == 0 && connected && !given_all && size > 0);
    return some(&given, bytes, size, &given_all);
}

static ssize_t fuzz_recv(int fd, void *bytes, size_t size, int flags)
{
    REQUIRE(fd == AGENT && (flags & MSG_DONTWAIT) && size > 0 && !answered);
    ssize_t count = some(&received, bytes, size, &answered);
    answered = answered || (count < 0 && errno == ECONNRESET);
    return count;
}

static ssize_t accept_some(struct kept *kept, const void *bytes, size_t size, int error)
{
    uint8_t what = next(255);
    if (what < 3)
        return failed(what == 0 ? error : what == 1 ? EINTR : EAGAIN);
    size_t count = what > 250 || what > size ? size : what;
    keep(kept, bytes, count);
    return (ssize_t)count;
}

static ssize_t fuzz_send(int fd, const void *bytes, size_t size, int flags)
{
    REQUIRE(fd == AGENT && flags == (MSG_DONTWAIT | MSG_NOSIGNAL) && size > 0 && !half_closed);
    ssize_t count = accept_some(&sent, bytes, size, EPIPE);
    send_failed = send_failed || (count < 0 && errno == EPIPE);
    return count;
}

static ssize_t fuzz_write(int fd, const void *bytes, size_t size)
{
    if (fd == 2)
        return (ssize_t)size;
    REQUIRE(fd == 1 || fd == MEMFD);
    ssize_t count = accept_some(fd == 1 ? &out : &memfd, bytes, size, ENOSPC);
    broken_out = broken_out || (fd == 1 && count < 0 && errno == ENOSPC);
    return count;
}

static int fuzz_shutdown(int fd, int how)
{
    REQUIRE(fd == AGENT && how == SHUT_WR);
    half_closed = true;
    return 0;
}

static int maybe_low(int fd)
{
    if (next(255) != 0)
        return fd;
    low = fd;
    return LOW;
}

static int fuzz_fcntl(int fd, int what, int least)
{
    REQUIRE(fd == LOW && low && what == F_DUPFD_CLOEXEC && least == 3);
    return next(255) == 0 ? (int)failed(EMFILE) : low;
}

static int fuzz_close(int fd)
{
    REQUIRE((fd == LOW && low) || (fd == AGENT && !connected));
    if (fd == LOW)
        low = 0;
    return 0;
}

static int fuzz_socket(int domain, int type, int protocol)
{
    REQUIRE(domain == AF_UNIX && (type & SOCK_CLOEXEC) && protocol == 0);
    return next(255) == 1 ? (int)failed(EMFILE) : maybe_low(AGENT);
}

static int fuzz_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    REQUIRE(fd == AGENT && size == sizeof(struct sockaddr_un) && memchr(((const struct sockaddr_un *)address)->sun_path, 0, 108));
    uint8_t what = next(255);
    if (what < 3)
        return (int)failed(what == 0 ? EINTR : what == 1 ? EAGAIN : ECONNREFUSED);
    connected = true;
    return 0;
}

static int fuzz_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    const struct timeval *limit = value;
    REQUIRE(fd == AGENT && level == SOL_SOCKET && name == SO_SNDTIMEO && size == sizeof *limit && limit->tv_sec == 3 && limit->tv_usec == 0);
    return 0;
}

static ssize_t fuzz_readlink(const char *path, char *target, size_t limit)
{
    REQUIRE(!strcmp(path, "/proc/self/exe"));
    if (next(255) == 0)
        return failed(EACCES);
    char name[SHOWN];
    size_t size = strlen(string(name, limit));
    memcpy(target, name, size);
    return (ssize_t)size;
}

static _Noreturn void fuzz_exit(int code)
{
    exit_code = code;
    longjmp(back, EXITED);
}

static int fuzz_execve(const char *path, char *const *argv, char *const *environ_)
{
    REQUIRE(argv[0] && environ_ == environment && strchr(path, '/') && strlen(path) >= 11 && !strcmp(path + strlen(path) - 11, ".standalone"));
    if (next(255) > 1)
        longjmp(back, BECAME_STANDALONE);
    return (int)failed(ENOENT);
}

static int fuzz_memfd(const char *name, unsigned flags)
{
    REQUIRE(*name && flags == MFD_CLOEXEC);
    return next(255) == 0 ? (int)failed(ENOSYS) : maybe_low(MEMFD);
}

static off_t fuzz_lseek(int fd, off_t place, int from)
{
    REQUIRE(fd == MEMFD && place == 0 && from == SEEK_SET);
    rewound = true;
    return 0;
}

static int fuzz_dup2(int from, int to)
{
    REQUIRE(from == MEMFD && to == 0);
    stdin_is_memfd = true;
    return 0;
}

static int fuzz_isatty(int fd)
{
    REQUIRE(fd == 0 && connected);
    given_all = next(255) == 0;
    return given_all;
}

#define main relay_main
#define environ environment
#define getenv fuzz_getenv
#define clock_gettime fuzz_clock
#define poll fuzz_poll
#define read fuzz_read
#define write fuzz_write
#define recv fuzz_recv
#define send fuzz_send
#define shutdown fuzz_shutdown
#define socket fuzz_socket
#define connect fuzz_connect
#define setsockopt fuzz_setsockopt
#define readlink fuzz_readlink
#define _exit fuzz_exit
#define execve fuzz_execve
#define memfd_create fuzz_memfd
#define lseek fuzz_lseek
#define dup2 fuzz_dup2
#define isatty fuzz_isatty
#define fcntl fuzz_fcntl
#define close fuzz_close
#define signal(number, handler) ((void)(handler))
#include "relay.c"
#undef main

/* An object on one line with nothing but strings and one number, well-formed UTF-8: what fail() makes. */
static bool is_error_object(const unsigned char *text, size_t size)
{
    const char *begin = "{\"cniVersion\": \"1.1.0\", \"code\": ";
    size_t quotes = 0;
    if (size < strlen(begin) + 4 || memcmp(text, begin, strlen(begin)) || memcmp(text + size - 3, "\"}\n", 3))
        return false;
    for (size_t i = 0; i + 1 < size;) {
        if (text[i] < ' ')
            return false;
        if (text[i] == '\\') {
            bool unicode = text[i + 1] == 'u';
            if (!unicode && text[i + 1] != '"' && text[i + 1] != '\\')
                return false;
            for (size_t digit = 2; unicode && digit < 6; digit++)
                if (!strchr("0123456789abcdef", text[i + digit]) || !text[i + digit])
                    return false;
            i += unicode ? 6 : 2;
            continue;
        }
        quotes += text[i] == '"';
        /* By the code point and not by the table of RFC 3629, as relay.c has it. */
        unsigned length = text[i] < 0x80 ? 1 : text[i] >> 5 == 6 ? 2 : text[i] >> 4 == 14 ? 3 : text[i] >> 3 == 30 ? 4 : 0;
        if (length == 0 || i + length >= size)
            return false;
        unsigned point = length == 1 ? text[i] : text[i] & (0x7fu >> length);
        for (unsigned k = 1; k < length; k++) {
            if (text[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (text[i + k] & 0x3f);
        }
        const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
        i += length;
    }
    return quotes == 14;
}

static bool is_passed_on(const char *entry)
{
    size_t key = strcspn(entry, "=");
    if (!entry[key])
        return false;
    return (key == 19 && !memcmp(entry, "NODE_ANNOTATION_CFG", key)) || (key == 11 && !memcmp(entry, "TRACEPARENT", key)) ||
           (key >= 4 && !memcmp(entry, "CNI_", 4));
}

static void check_request(const char *argv0)
{
    static struct kept wanted;
    wanted.size = 0;
    keep(&wanted, "kn1", 4);
    const char *name = strrchr(argv0, '/') ? strrchr(argv0, '/') + 1 : argv0;
    if (!*name)
        name = strrchr(self.bytes, '/') ? strrchr(self.bytes, '/') + 1 : self.bytes;
    keep(&wanted, name, strlen(name) + 1);
    for (char **entry = environment; *entry; entry++)
        if (is_passed_on(*entry))
            keep(&wanted, *entry, strlen(*entry) + 1);
    keep(&wanted, "", 1);
    keep(&wanted, given.bytes, given.size);
    REQUIRE(sent.size <= wanted.size && !memcmp(sent.bytes, wanted.bytes, sent.size));
    REQUIRE(sent.size == 0 || given_all);
    REQUIRE(!half_closed || send_failed || sent.size == wanted.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const commands[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "?", ""};
    static char room[16][SHOWN * 2], argv0[SHOWN * 2];
    char *argv[3] = {argv0, NULL, NULL};
    input = data;
    input_end = data + size;
    out.size = sent.size = received.size = given.size = memfd.size = 0;
    connected = answered = given_all = half_closed = broken_out = rewound = stdin_is_memfd = send_failed = false;
    struct text *texts[] = {&request, &answer, &error, &socket_path, &standalone, &self};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        texts[i]->size = 0;
        texts[i]->bytes[0] = 0;
    }
    clock_ms = 1000;
    low = 0;

    uint8_t flags = next(0);
    const char *command = commands[flags & 7];
    size_t count = 0;
    snprintf(environment[count++] = room[0], sizeof room[0], "CNI_COMMAND=%s", command);
    for (size_t more = flags >> 3 & 7; count <= more; count++) {
        uint8_t what = next(0);
        static const char *const prefixes[] = {"", "KUBE_NODE_SOCKET=", "KUBE_NODE_RUN_DIR=", "TRACEPARENT=", "NODE_ANNOTATION_CFG=", "CNI_", "CNI_", "CNI_"};
        const char *prefix = prefixes[what & 7];
        environment[count] = room[count];
        strcpy(room[count], prefix);
        string(room[count] + strlen(prefix), SHOWN + SHOWN / 2);
        if (!strncmp(room[count], "CNI_COMMAND=", 12)) /* the first one counts */
            room[count][0] = 'c';
    }
    environment[count] = NULL;
    strcpy(argv0, flags & 64 ? "/opt/cni/bin/kube-node" : "");
    if (!(flags & 64))
        string(argv0, sizeof argv0);
    argv[1] = flags & 128 ? room[1] : NULL;
    if (argv[1])
        strcpy(room[1], "--version");

    enum outcome outcome = (enum outcome)setjmp(back);
    if (outcome == 0) {
        relay_main(argv[1] ? 2 : 1, argv);
        abort(); /* it never returns */
    }
    REQUIRE(!low);
    if (argv[1] || !*command) {
        REQUIRE(!connected && given.size == 0);
        return 0;
    }
    check_request(argv0);
    bool add = !strcmp(command, "ADD");
    const unsigned char *end = received.bytes + received.size;
    bool object = received.size >= 4 && received.bytes[1] == '{' && end[-2] == '}' && end[-1] == '\n';
    bool nothing = received.size == 1;
    bool of_agent = answered && ((object && received.bytes[0] < 2) || (nothing && received.bytes[0] == 0 && !add));
    bool refused = answered && (object || nothing) && received.bytes[0] == 2;
    if (outcome == BECAME_STANDALONE) {
        REQUIRE(!connected || stdin_is_memfd);
        if (connected) {
            REQUIRE(given_all && rewound && memfd.size == given.size && !memcmp(memfd.bytes, given.bytes, given.size));
            REQUIRE(!of_agent && (!add || refused));
        }
    } else if (broken_out) {
        REQUIRE(exit_code == 1);
    } else if (of_agent || (refused && object)) {
        REQUIRE(exit_code == (received.bytes[0] ? 1 : 0) && out.size == received.size - 1 && !memcmp(out.bytes, received.bytes + 1, out.size));
    } else {
        REQUIRE(exit_code == 1 && is_error_object(out.bytes, out.size));
    }
    return 0;
}
