/*
 * Carries the packets of a network lab: each node is a network namespace with a tun device, and all packets between
 * them come through here, where they are delayed, paced, lost and counted (relay_net.h). One process, one thread, one
 * epoll; it sleeps until a packet comes or is due.
 *
 *   cmig-lab-relay serve SOCKET [SEED]        until its parent dies
 *   cmig-lab-relay tell SOCKET COMMAND...     one command (relay_control.h), its answer on standard output
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/scope.h"
#include "tests/lab/relay_control.h"
#include "tests/lab/relay_frame.h"
#include "tests/lab/relay_net.h"

#define DEVICE "net0"
#define LINE_BYTES 4096
#define ANSWER_BYTES (4u << 20) /* 64 nodes show 4,032 paths x ~150 B */
#define FRAMES_AT_ONCE 16       /* read from one node before what is due is looked after again */
#define GRAIN_NS 100000u        /* between two rounds under load */
#define NS_PER_S 1000000000u

OWNED_DEFINE(owned_net, struct net, net_free)

struct relay {
    struct net *net; /* owned */
    int epoll;
    int listener;
    int home; /* the namespace that it was started in */
    int tuns[NET_NODES];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- devices ---- */

/* In the present namespace. The kernel leaves to it checksums and the cutting of TCP segments. */
static int open_tun(struct err *err)
{
    OWNED(owned_fd) int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "open /dev/net/tun");
    struct ifreq request = {.ifr_name = DEVICE, .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return err_errno(err, errno, "make the device " DEVICE);
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN) < 0)
        return err_errno(err, errno, "set the offloads of " DEVICE);
    return steal_fd(&fd);
}

static int attach(void *ctx, unsigned node, const char *namespace_file, struct err *err)
{
    struct relay *relay = ctx;
    OWNED(owned_fd) int there = open(namespace_file, O_RDONLY | O_CLOEXEC);
    if (there < 0 || setns(there, CLONE_NEWNET) < 0)
        return err_errno(err, errno, "enter the namespace '%s'", namespace_file);
    int tun = open_tun(err);
    if (setns(relay->home, CLONE_NEWNET) < 0)
        abort(); /* in the wrong network it can do nothing right */
    if (tun < 0)
        return tun;
    relay->tuns[node] = tun;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = node};
    if (epoll_ctl(relay->epoll, EPOLL_CTL_ADD, tun, &event) < 0)
        return err_errno(err, errno, "watch " DEVICE);
    return 0;
}

static void take_frames(struct relay *relay, unsigned node)
{
    uint8_t frame[FRAME_MAX];
    for (int i = 0; i < FRAMES_AT_ONCE; i++) {
        ssize_t len = read(relay->tuns[node], frame, sizeof frame);
        if (len <= 0)
            return;
        net_send(relay->net, node, frame, (size_t)len, now_ns());
    }
}

/* What a device does not take (it is down) is lost, as on a wire whose end nobody holds. */
static void deliver(void *ctx, unsigned node, const uint8_t *frame, size_t len_bytes)
{
    const struct relay *relay = ctx;
    if (write(relay->tuns[node], frame, len_bytes) < 0)
        return;
}

/* ---- control ---- */

static int socket_at(const char *path, struct sockaddr_un *ret_address, struct err *err)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof ret_address->sun_path)
        return err_set(err, ERR_INVALID, "the path '%s' is too long for a socket", path);
    strcpy(ret_address->sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? err_errno(err, errno, "make a socket") : fd;
}

static int write_all(int fd, const void *data, size_t len_bytes)
{
    for (size_t done = 0; done < len_bytes;) {
        ssize_t n = send(fd, (const char *)data + done, len_bytes - done, MSG_NOSIGNAL);
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

/* Read until the other side has said everything; NUL behind it. Returns its length, -1 if it is too long or fails. */
static ssize_t read_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    while (len + 1 < size) {
        ssize_t n = read(fd, text + len, size - 1 - len);
        if (n < 0)
            return -1;
        if (n == 0) {
            text[len] = '\0';
            return (ssize_t)len;
        }
        len += (size_t)n;
    }
    return -1;
}

/* One command and its answer: "ok" or "error" and a line, then what there is to show. The network waits meanwhile; the
 * client is the program itself, which says all that it has to say before it waits. */
static void serve_client(struct relay *relay)
{
    OWNED(owned_fd) int client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
    struct timeval patience = {.tv_sec = 10}; /* a busy machine may keep the client from its next line for long */
    char line[LINE_BYTES];
    if (client < 0 || setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
        read_all(client, line, sizeof line) < 0)
        return;
    OWNED(buf_release) struct buf answer = BUF(ANSWER_BYTES);
    struct err err = {0};
    buf_add_str(&answer, "ok\n");
    if (control_obey(relay->net, line, &answer, attach, relay, &err) < 0) {
        buf_clear(&answer);
        buf_addf(&answer, "error %s\n", err.text);
    }
    write_all(client, answer.data, answer.len);
}

/* There is a moment in which the socket has its name and does not listen yet. */
static int dial(int fd, const struct sockaddr_un *address)
{
    for (int i = 0; i < 100; i++) {
        if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
            return 0;
        if (errno != ECONNREFUSED)
            return -1;
        usleep(10000);
    }
    return -1;
}

static int tell(const char *path, char **words, int count)
{
    struct err err = {0};
    struct sockaddr_un address;
    OWNED(owned_fd) int fd = socket_at(path, &address, &err);
    OWNED(buf_release) struct buf line = BUF(LINE_BYTES);
    for (int i = 0; i < count; i++)
        buf_addf(&line, "%s ", words[i]);
    if (fd < 0 || line.failed || dial(fd, &address) < 0 || write_all(fd, line.data, line.len) < 0 ||
        shutdown(fd, SHUT_WR) < 0) {
        fprintf(stderr, "cmig-lab-relay: '%s' does not take commands: %s\n", path, strerror(errno));
        return 1;
    }
    OWNED(owned_free) char *answer = malloc(ANSWER_BYTES);
    if (!answer || read_all(fd, answer, ANSWER_BYTES) < 3 || strncmp(answer, "ok\n", 3) != 0) {
        fprintf(stderr, "cmig-lab-relay: %s", answer && *answer ? answer : "no answer\n");
        return 1;
    }
    fputs(answer + 3, stdout);
    return 0;
}

/* ---- the loop ---- */

static int prepare(struct relay *relay, const char *path, struct err *err)
{
    struct sockaddr_un address;
    relay->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    relay->epoll = epoll_create1(EPOLL_CLOEXEC);
    relay->listener = socket_at(path, &address, err);
    if (relay->home < 0 || relay->epoll < 0 || relay->listener < 0)
        return err_errno(err, errno, "begin");
    if (bind(relay->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(relay->listener, 16) < 0)
        return err_errno(err, errno, "listen at '%s'", path);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = NET_NODES};
    if (epoll_ctl(relay->epoll, EPOLL_CTL_ADD, relay->listener, &event) < 0)
        return err_errno(err, errno, "watch '%s'", path);
    return 0;
}

/* To be exact beside busy daemons it goes before them, where the machine lets it; timers are not rounded. */
static void be_punctual(void)
{
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &priority);
    prctl(PR_SET_TIMERSLACK, 1000);
}

/* Waking up costs more than what is then done. So a round is not begun sooner than a grain after the one before: under
 * load one wake-up serves many frames, and none is late by more than that; a lone packet does not wait. */
static uint64_t pause_between_rounds(uint64_t last_ns)
{
    uint64_t begin_ns = last_ns + GRAIN_NS, present_ns = now_ns();
    if (present_ns >= begin_ns)
        return present_ns;
    struct timespec until = {.tv_sec = (time_t)(begin_ns / NS_PER_S), .tv_nsec = (long)(begin_ns % NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    return now_ns();
}

static void carry(struct relay *relay)
{
    struct epoll_event events[NET_NODES + 1];
    for (uint64_t round_ns = 0;;) {
        round_ns = pause_between_rounds(round_ns);
        uint64_t next_ns = net_run(relay->net, round_ns), present_ns = now_ns();
        uint64_t wait_ns = next_ns > present_ns ? next_ns - present_ns : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
        int count = epoll_pwait2(relay->epoll, events, NET_NODES + 1, next_ns == NET_NEVER ? NULL : &wait, NULL);
        if (count < 0 && errno != EINTR)
            abort();
        for (int i = 0; i < count; i++)
            if (events[i].data.u32 == NET_NODES)
                serve_client(relay);
            else
                take_frames(relay, events[i].data.u32);
    }
}

static int serve(const char *path, uint64_t seed)
{
    struct err err = {0};
    struct relay relay = {0};
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        return 1; /* it died before it could be asked */
    OWNED(owned_net) struct net *net = net_new(seed, deliver, &relay);
    relay.net = net;
    if (!net || prepare(&relay, path, &err) < 0) {
        fprintf(stderr, "cmig-lab-relay: %s\n", net ? err.text : "no memory");
        return 1;
    }
    be_punctual();
    carry(&relay);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && argc <= 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argc == 4 ? strtoull(argv[3], NULL, 0) : 7421);
    if (argc >= 4 && strcmp(argv[1], "tell") == 0)
        return tell(argv[2], argv + 3, argc - 3);
    fprintf(stderr, "usage: cmig-lab-relay serve SOCKET [SEED]\n       cmig-lab-relay tell SOCKET COMMAND...\n");
    return 2;
}
