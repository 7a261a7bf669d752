#include "node/gateway/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "tests/test.h"
#include "tests/unit/gateway/disk.h"
#include "tests/unit/gateway/fake.h"

/* The server on a loop that the test turns, and clients on plain sockets. Time is the machine's, but for the wall. */
struct fixture {
    uv_loop_t loop;
    struct fake_mesh mesh;
    struct disk *disk;
    struct sets *sets;
    struct channels *channels;
    struct server *server;
    uint64_t ahead_ms; /* of the monotonic clock */
};

static uint64_t mono(void *ctx)
{
    struct clock clock = clock_system();
    return clock_mono_ms(&clock) + ((struct fixture *)ctx)->ahead_ms;
}

static uint64_t wall(void *ctx)
{
    return ((struct fixture *)ctx)->mesh.wall_ms;
}

static void on_ready(void *ctx)
{
    struct fixture *f = ctx;
    if (f->server)
        server_sets_ready(f->server);
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    struct fixture *f = ctx;
    if (f->server)
        server_committed(f->server, status, err);
}

static void begin(struct fixture *f)
{
    struct err err;
    *f = (struct fixture){.disk = calloc(1, sizeof *f->disk)};
    uv_loop_init(&f->loop);
    fake_mesh_init(&f->mesh);
    struct clock clock = {mono, wall, f};
    struct sets_config sets = {.mesh = fake_sets_mesh(&f->mesh),
                               .disk = disk_of(f->disk),
                               .jobs = disk_jobs(f->disk),
                               .clock = clock,
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = f};
    struct channels_mesh channels = fake_channels_mesh(&f->mesh);
    assert_int_equal(sets_new(&sets, &f->sets, &err), 0);
    assert_int_equal(channels_new(&channels, 1, &f->channels, &err), 0);
    struct server_config config = {.loop = &f->loop,
                                   .listen = {.family = 4, .ip = {127, 0, 0, 1}},
                                   .sets = f->sets,
                                   .channels = f->channels,
                                   .clock = clock};
    assert_int_equal(server_new(&config, &f->server, &err), 0);
}

static void end(struct fixture *f)
{
    server_close(f->server);
    sets_close(f->sets);
    while (disk_run(f->disk) || !server_closed(f->server))
        uv_run(&f->loop, UV_RUN_NOWAIT);
    server_free(f->server);
    channels_free(f->channels);
    sets_free(f->sets);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_mesh_release(&f->mesh);
    disk_free(f->disk);
}

static void turn(struct fixture *f)
{
    uv_run(&f->loop, UV_RUN_NOWAIT);
    fake_mesh_run(&f->mesh);
}

/* Turns with all jobs done. */
static void settle(struct fixture *f)
{
    for (int i = 0; i < 20; i++) {
        turn(f);
        disk_run(f->disk);
    }
}

static int dial(struct fixture *f)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(server_port(f->server)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    for (int i = 0; i < 3; i++)
        turn(f);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

enum { HEARD_NOTHING = -1, HEARD_END = 0 };

/* What has come; HEARD_NOTHING, or HEARD_END when the server has closed. */
static ssize_t hear(int fd, char *text, size_t size)
{
    ssize_t len = recv(fd, text, size - 1, MSG_DONTWAIT);
    if (len < 0)
        return errno == ECONNRESET ? HEARD_END : HEARD_NOTHING;
    text[len] = 0;
    return len;
}

static void expect(struct fixture *f, int fd, const char *expected)
{
    char text[4096] = "";
    settle(f);
    hear(fd, text, sizeof text);
    assert_string_equal(text, expected);
}

static void expect_end(struct fixture *f, int fd)
{
    char text[4096];
    settle(f);
    assert_int_equal(hear(fd, text, sizeof text), HEARD_END);
    close(fd);
}

static void expect_nothing(int fd)
{
    char text[4096];
    assert_int_equal(hear(fd, text, sizeof text), HEARD_NOTHING);
}

static void test_server__pipelines(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f);
    say(fd, "PING\r\nZADD k 1 a 2 b\r\nZCARD k\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nZRANGE k 0 -1\r\n");
    expect(&f, fd, "+PONG\r\n:2\r\n:2\r\n$2\r\nhi\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    say(fd, "QUIT\r\nPING\r\n");
    expect(&f, fd, "+OK\r\n");
    expect_end(&f, fd);
    end(&f);
}

/* A reply that tells of a write comes when the write is on disk, those behind it come after it, others before it. */
static void test_server__holds_replies_until_durable(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f), other = dial(&f);
    say(fd, "ZCARD k\r\n");
    expect(&f, fd, ":0\r\n");
    say(fd, "PING\r\nZADD k 1 a\r\nPING\r\nZADD k 2 b\r\n");
    for (int i = 0; i < 10; i++)
        turn(&f);
    char text[256];
    assert_int_equal(hear(fd, text, sizeof text), 7);
    assert_string_equal(text, "+PONG\r\n");
    /* Others see it already, and what they write gathers for the next commit. */
    say(other, "ZCARD k\r\nZADD k 3 c\r\n");
    for (int i = 0; i < 10; i++)
        turn(&f);
    assert_int_equal(hear(other, text, sizeof text), 4);
    assert_string_equal(text, ":2\r\n");
    assert_true(disk_run(f.disk));
    for (int i = 0; i < 10; i++)
        turn(&f);
    hear(fd, text, sizeof text);
    assert_string_equal(text, ":1\r\n+PONG\r\n:1\r\n");
    expect_nothing(other);
    expect(&f, other, ":1\r\n");
    close(fd);
    close(other);
    end(&f);
}

/* Not even the end of the client's side loses the reply. */
static void test_server__answers_who_has_ended(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f);
    say(fd, "ZADD k 1 a\r\nZCARD k\r\n");
    shutdown(fd, SHUT_WR);
    expect(&f, fd, ":1\r\n:1\r\n");
    expect_end(&f, fd);
    end(&f);
}

static void test_server__tells_what_is_not_durable(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f);
    f.disk->status = ERR_NOSPACE;
    say(fd, "PING\r\nZADD k 1 a\r\nPING\r\n");
    expect(&f, fd, "+PONG\r\n-MISCONF what was written is not on disk yet: the disk is full\r\n");
    expect_end(&f, fd);
    f.disk->status = 0;
    end(&f);
}

static void test_server__waits_for_sets_in_order(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f);
    f.mesh.silent = true;
    say(fd, "PING\r\nZCARD far\r\nPING\r\n");
    for (int i = 0; i < 10; i++)
        turn(&f);
    char text[256];
    assert_int_equal(hear(fd, text, sizeof text), 7);
    fake_put_member(&f.mesh, "far", "a", 1, 10);
    f.mesh.silent = false;
    expect(&f, fd, ":1\r\n+PONG\r\n");
    close(fd);
    end(&f);
}

/* faults 90 */
static void test_server__closes_on_other_protocols(void **state)
{
    (void)state;
    static const char *const first[] = {"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a b\r\n", "Host: x\r\n",
                                        "GET / HTTP/1.1\r\n", "\x16\x03\x01\x02"};
    struct fixture f;
    begin(&f);
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        int fd = dial(&f);
        say(fd, first[i]);
        expect_end(&f, fd);
    }
    assert_int_equal(server_house(f.server)->clients, 0);
    end(&f);
}

/* faults 91 */
static void test_server__closes_on_malformed_commands(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f);
    say(fd, "PING\r\n*1\r\n$-5\r\nPING\r\n");
    expect(&f, fd, "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n");
    expect_end(&f, fd);
    /* One that begins and does not end. */
    fd = dial(&f);
    int idle = dial(&f);
    say(fd, "*2\r\n$4\r\nECHO\r\n$100\r\nabc");
    settle(&f);
    f.ahead_ms = LIMIT_RESP_COMMAND_MS + 10;
    for (int i = 0; i < 20; i++) {
        usleep(60000);
        turn(&f);
    }
    expect_end(&f, fd);
    say(idle, "PING\r\n");
    expect(&f, idle, "+PONG\r\n");
    close(idle);
    end(&f);
}

static void test_server__delivers_messages(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    int fd = dial(&f), other = dial(&f);
    say(fd, "SUBSCRIBE news\r\n");
    expect(&f, fd, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    say(other, "PUBLISH news hi\r\nPUBLISH olds hi\r\n");
    expect(&f, other, ":1\r\n:0\r\n");
    expect(&f, fd, "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    close(fd);
    settle(&f);
    assert_int_equal(f.mesh.listening, 0);
    close(other);
    end(&f);
}

/* faults 92 */
static void test_server__cuts_slow_subscribers(void **state)
{
    (void)state;
    struct fixture f;
    char line[600], message[481];
    begin(&f);
    int slow = dial(&f), fast = dial(&f);
    memset(message, 'x', 480);
    message[480] = 0;
    snprintf(line, sizeof line, "PUBLISH news %s\r\n", message);
    say(slow, "SUBSCRIBE news\r\n");
    settle(&f);
    for (int i = 0; i < 40000 && server_house(f.server)->cut == 0; i++) {
        char text[4096];
        say(fast, line);
        turn(&f);
        hear(fast, text, sizeof text);
    }
    assert_int_equal(server_house(f.server)->cut, 1);
    settle(&f);
    assert_int_equal(server_house(f.server)->clients, 1);
    say(fast, "PUBLISH news x\r\n");
    expect(&f, fast, ":0\r\n");
    close(slow);
    close(fast);
    end(&f);
}

/* faults 92: who asks for much and reads nothing is not listened to, which bounds what is kept for it. */
static void test_server__does_not_listen_to_who_does_not_read(void **state)
{
    (void)state;
    struct fixture f;
    char line[256];
    static char block[65536];
    begin(&f);
    int fd = dial(&f);
    for (int i = 0; i < 500; i++) {
        snprintf(line, sizeof line, "ZADD k %d member-with-a-rather-long-name-%d\r\n", i, i);
        say(fd, line);
        if (i % 50 == 49)
            settle(&f);
    }
    settle(&f);
    while (hear(fd, block, sizeof block) > 0)
        continue;
    /* 2,000 times 26 KiB. */
    size_t asked = 0, heard = 0;
    for (int i = 0; i < 2000; i++) {
        if (send(fd, "ZRANGE k 0 -1\r\n", 15, MSG_NOSIGNAL | MSG_DONTWAIT) == 15)
            asked++;
        if (i % 20 == 0)
            turn(&f);
    }
    assert_int_equal(server_house(f.server)->clients, 1);
    assert_true(server_house(f.server)->commands - 500 < asked);
    say(fd, "PING\r\n");
    for (int i = 0; i < 100000; i++) {
        turn(&f);
        ssize_t len = hear(fd, block, sizeof block);
        if (len <= 0)
            continue;
        heard += (size_t)len;
        if (strcmp(block + len - 7, "+PONG\r\n") == 0)
            break;
    }
    assert_true(heard > asked * 20000);
    assert_int_equal(server_house(f.server)->cut, 0);
    close(fd);
    end(&f);
}

/* More replies than are kept, all behind one write: they wait for the commit, then go on. */
static void test_server__holds_many_replies(void **state)
{
    (void)state;
    struct fixture f;
    char line[256];
    static char block[65536];
    size_t heard = 0;
    begin(&f);
    int fd = dial(&f);
    for (int i = 0; i < 500; i++) {
        snprintf(line, sizeof line, "ZADD k %d member-with-a-rather-long-name-%d\r\n", i, i);
        say(fd, line);
        if (i % 50 == 49)
            settle(&f);
    }
    while (hear(fd, block, sizeof block) > 0)
        continue;
    say(fd, "ZADD k 1 last\r\n");
    for (int i = 0; i < 400; i++)
        say(fd, "ZRANGE k 0 -1\r\n");
    say(fd, "PING\r\n");
    for (int i = 0; i < 50; i++)
        turn(&f);
    expect_nothing(fd);
    for (int i = 0; i < 100000; i++) {
        turn(&f);
        disk_run(f.disk);
        ssize_t len = hear(fd, block, sizeof block);
        heard += len > 0 ? (size_t)len : 0;
        if (len > 7 && strcmp(block + len - 7, "+PONG\r\n") == 0)
            break;
    }
    assert_true(heard > 400 * 20000);
    assert_int_equal(server_house(f.server)->cut, 0);
    close(fd);
    end(&f);
}

static void test_server__counts_its_clients(void **state)
{
    (void)state;
    struct fixture f;
    int fds[LIMIT_RESP_CLIENTS + 1];
    begin(&f);
    for (int i = 0; i <= LIMIT_RESP_CLIENTS; i++)
        fds[i] = dial(&f);
    expect(&f, fds[LIMIT_RESP_CLIENTS], "-ERR max number of clients reached\r\n");
    expect_end(&f, fds[LIMIT_RESP_CLIENTS]);
    assert_int_equal(server_house(f.server)->clients, LIMIT_RESP_CLIENTS);
    say(fds[0], "PING\r\n");
    expect(&f, fds[0], "+PONG\r\n");
    close(fds[0]);
    settle(&f);
    fds[0] = dial(&f);
    say(fds[0], "PING\r\n");
    expect(&f, fds[0], "+PONG\r\n");
    for (int i = 0; i < LIMIT_RESP_CLIENTS; i++)
        close(fds[i]);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server__pipelines),
        cmocka_unit_test(test_server__holds_replies_until_durable),
        cmocka_unit_test(test_server__answers_who_has_ended),
        cmocka_unit_test(test_server__tells_what_is_not_durable),
        cmocka_unit_test(test_server__waits_for_sets_in_order),
        cmocka_unit_test(test_server__closes_on_other_protocols),
        cmocka_unit_test(test_server__closes_on_malformed_commands),
        cmocka_unit_test(test_server__delivers_messages),
        cmocka_unit_test(test_server__cuts_slow_subscribers),
        cmocka_unit_test(test_server__does_not_listen_to_who_does_not_read),
        cmocka_unit_test(test_server__holds_many_replies),
        cmocka_unit_test(test_server__counts_its_clients),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
