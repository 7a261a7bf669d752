#include "node/api/descriptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "node/base/scope.h"

/* Room for one descriptor, as the kernel reckons: what does not fit is closed there (MSG_CTRUNC). */
#define CONTROL_BYTES CMSG_LEN(sizeof(int))

union control {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int api_descriptor_send(int socket, int fd, struct err *err)
{
    char byte = 0;
    struct iovec part = {&byte, 1};
    union control control = {.head = {.cmsg_len = CONTROL_BYTES, .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CONTROL_BYTES};
    ssize_t put;
    do
        put = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    if (put < 0 && (errno == EPIPE || errno == ECONNRESET))
        return err_set(err, ERR_CLOSED, "the other side went away");
    return put < 0 ? err_errno(err, errno, "cannot hand over an open file") : 0;
}

static int take_descriptor(struct msghdr *message, int *ret_fd, struct err *err)
{
    const struct cmsghdr *head = CMSG_FIRSTHDR(message);
    OWNED(owned_fd) int fd = -1;
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CONTROL_BYTES)
        memcpy(&fd, CMSG_DATA(head), sizeof fd);
    if (fd < 0 && (message->msg_flags & MSG_CTRUNC))
        return err_set(err, ERR_BUSY, "too many files are open here to take one more");
    if (fd < 0 || (message->msg_flags & MSG_CTRUNC))
        return err_set(err, ERR_INVALID, "one open file was to come, and something else did");
    *ret_fd = steal_fd(&fd);
    return 1;
}

int api_descriptor_receive(int socket, int *ret_fd, struct err *err)
{
    char byte;
    struct iovec part = {&byte, 1};
    union control control;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CONTROL_BYTES};
    ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        return err_set(err, ERR_CLOSED, "the other side went away before it handed over a file");
    return take_descriptor(&message, ret_fd, err);
}
