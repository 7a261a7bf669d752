#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/api/listen.h"
#include "node/base/file.h"

static char dir[64], path[96];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/cmig-listen-XXXXXX");
    snprintf(path, sizeof path, "%s/a/b/node.sock", mkdtemp(dir));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static bool answers(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool connected = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return connected;
}

static void test_listen__makes_the_socket_with_its_mode(void **state)
{
    (void)state;
    struct api_listener listener;
    struct stat status;
    mode_t old = umask(0);
    assert_int_equal(api_listener_open(path, "no-such-group-here", &listener, NULL), 0);
    umask(old);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
    assert_true(answers());
    api_listener_close(&listener);
    assert_false(file_exists(path));
}

static void test_listen__replaces_a_leftover(void **state)
{
    (void)state;
    struct api_listener killed, next;
    assert_int_equal(api_listener_open(path, NULL, &killed, NULL), 0);
    close(killed.fd); /* as when the process is killed: the file stays */
    killed.fd = -1;
    assert_int_equal(api_listener_open(path, NULL, &next, NULL), 0);
    assert_true(answers());
    api_listener_close(&killed); /* no longer its own */
    assert_true(answers());
    api_listener_close(&next);
}

static void test_listen__leaves_a_living_node_alone(void **state)
{
    (void)state;
    struct api_listener first, second;
    struct err err;
    assert_int_equal(api_listener_open(path, NULL, &first, NULL), 0);
    assert_int_equal(api_listener_open(path, NULL, &second, &err), ERR_BUSY);
    assert_true(answers());
    api_listener_close(&first);
}

static void test_listen__leaves_other_files_alone(void **state)
{
    (void)state;
    struct api_listener listener;
    struct err err;
    assert_int_equal(file_make_dirs(dir, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/file", dir);
    assert_int_equal(file_write_atomic(path, "x", 1, 0600, NULL), 0);
    assert_int_equal(api_listener_open(path, NULL, &listener, &err), ERR_EXISTS);
    assert_true(file_exists(path));
}

static void test_listen__refuses_paths_that_sockets_cannot_have(void **state)
{
    (void)state;
    struct api_listener listener;
    struct err err;
    char long_path[200];
    memset(long_path, 'x', sizeof long_path - 1);
    memcpy(long_path, "/tmp/", 5);
    long_path[108] = '\0';
    assert_int_equal(api_listener_open(long_path, NULL, &listener, &err), ERR_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_listen__makes_the_socket_with_its_mode),
        TEST(test_listen__replaces_a_leftover),
        TEST(test_listen__leaves_a_living_node_alone),
        TEST(test_listen__leaves_other_files_alone),
        TEST(test_listen__refuses_paths_that_sockets_cannot_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
