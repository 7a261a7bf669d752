#include "tests/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/api/descriptor.h"
#include "node/base/scope.h"

struct pair {
    int ends[2];
};

static int setup(void **state)
{
    static struct pair pair;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.ends), 0);
    *state = &pair;
    return 0;
}

static int teardown(void **state)
{
    struct pair *pair = *state;
    owned_fd(&pair->ends[0]);
    owned_fd(&pair->ends[1]);
    return 0;
}

static int count_open(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* `count` descriptors in one message, beside one byte. */
static void send_several(int socket, const int *fds, size_t count)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {.head = {CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec part = {"x", 1};
    memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    assert_int_equal(sendmsg(socket, &message, 0), 1);
}

static void test_descriptor__arrives_as_the_same_open_file(void **state)
{
    struct pair *pair = *state;
    struct err err = {0};
    char text[6] = "";
    OWNED(owned_fd) int file = memfd_create("file", MFD_CLOEXEC), got = -1;
    assert_int_equal(write(file, "hello", 5), 5);
    assert_int_equal(api_descriptor_receive(pair->ends[1], &got, &err), 0); /* not yet */
    assert_int_equal(api_descriptor_send(pair->ends[0], file, &err), 0);
    assert_int_equal(api_descriptor_receive(pair->ends[1], &got, &err), 1);
    assert_int_equal(pread(got, text, 5, 0), 5);
    assert_string_equal(text, "hello");
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    /* the byte that carried it is gone */
    assert_int_equal(recv(pair->ends[1], text, 1, MSG_DONTWAIT), -1);
}

static void test_descriptor__is_one_or_none(void **state)
{
    struct pair *pair = *state;
    struct err err = {0};
    int before = count_open(), fd = -1;
    const int two[] = {STDIN_FILENO, STDOUT_FILENO};
    send_several(pair->ends[0], two, 2);
    assert_int_equal(api_descriptor_receive(pair->ends[1], &fd, &err), ERR_INVALID);
    assert_int_equal(send(pair->ends[0], "GET", 3, 0), 3);
    assert_int_equal(api_descriptor_receive(pair->ends[1], &fd, &err), ERR_INVALID);
    assert_int_equal(fd, -1);
    assert_int_equal(count_open(), before);
}

/* faults 28: there is one more than may be open here, which the other side can do nothing about */
static void test_descriptor__that_there_is_no_room_for(void **state)
{
    struct pair *pair = *state;
    struct err err = {0};
    struct rlimit before;
    int fd = -1, free_fd = dup(STDIN_FILENO);
    close(free_fd);
    assert_int_equal(api_descriptor_send(pair->ends[0], STDIN_FILENO, &err), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)free_fd, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int status = api_descriptor_receive(pair->ends[1], &fd, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, ERR_BUSY);
    assert_int_equal(fd, -1);
}

static void test_descriptor__of_nobody_left(void **state)
{
    struct pair *pair = *state;
    struct err err = {0};
    int fd = -1;
    close(steal_fd(&pair->ends[0]));
    assert_int_equal(api_descriptor_receive(pair->ends[1], &fd, &err), ERR_CLOSED);
    assert_int_equal(api_descriptor_send(pair->ends[1], STDIN_FILENO, &err), ERR_CLOSED);
}

static void test_descriptor__that_is_not_open_cannot_be_sent(void **state)
{
    struct pair *pair = *state;
    struct err err = {0};
    assert_int_equal(api_descriptor_send(pair->ends[0], 1 << 20, &err), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_descriptor__arrives_as_the_same_open_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor__is_one_or_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor__that_there_is_no_room_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor__of_nobody_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor__that_is_not_open_cannot_be_sent, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
