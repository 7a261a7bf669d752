#include "node/gateway/command.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "tests/test.h"
#include "tests/unit/gateway/disk.h"
#include "tests/unit/gateway/fake.h"

/* A server without sockets: one session, whose commands come as text. */
struct fixture {
    struct fake_mesh mesh;
    struct disk *disk;
    struct sets *sets;
    struct channels *channels;
    struct command_house house;
    struct session session;
    struct resp_reader *reader;
    struct buf out, pushed;
};

static uint64_t wall(void *ctx)
{
    return ((struct fixture *)ctx)->mesh.wall_ms;
}

static void on_ready(void *ctx)
{
    (void)ctx;
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    (void)ctx, (void)status, (void)err;
}

static void push(struct subscriber *subscriber, const void *bytes, size_t len_bytes)
{
    struct fixture *f = (struct fixture *)((char *)subscriber - offsetof(struct fixture, session.subscriber));
    buf_add(&f->pushed, bytes, len_bytes);
}

static void each_session(void *ctx, session_cb cb, void *cb_ctx)
{
    struct fixture *f = ctx;
    cb(cb_ctx, &f->session);
}

static void begin(struct fixture *f)
{
    struct err err;
    *f = (struct fixture){.disk = calloc(1, sizeof *f->disk), .out = BUF(1u << 20), .pushed = BUF(1u << 20)};
    fake_mesh_init(&f->mesh);
    struct sets_config sets = {.mesh = fake_sets_mesh(&f->mesh),
                               .disk = disk_of(f->disk),
                               .jobs = disk_jobs(f->disk),
                               .clock = {wall, wall, f},
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = f};
    struct channels_mesh channels = fake_channels_mesh(&f->mesh);
    assert_int_equal(sets_new(&sets, &f->sets, &err), 0);
    assert_int_equal(channels_new(&channels, 1, &f->channels, &err), 0);
    assert_int_equal(resp_reader_new(&f->reader, &err), 0);
    subscriber_init(&f->session.subscriber, push);
    f->session.id = 7;
    f->house = (struct command_house){.sets = f->sets, .channels = f->channels, .each_session = each_session, .ctx = f};
}

static void end(struct fixture *f)
{
    const void *name;
    size_t len;
    while (channels_first_of(&f->session.subscriber, &name, &len)) {
        char copy[LIMIT_SET_NAME_BYTES];
        memcpy(copy, name, len);
        channels_unsubscribe(f->channels, &f->session.subscriber, copy, len);
    }
    sets_close(f->sets);
    while (disk_run(f->disk))
        continue;
    sets_free(f->sets);
    channels_free(f->channels);
    resp_reader_free(f->reader);
    fake_mesh_release(&f->mesh);
    disk_free(f->disk);
    buf_release(&f->out);
    buf_release(&f->pushed);
}

static enum command_result try_run(struct fixture *f, const char *line)
{
    struct resp_command request;
    struct err err;
    resp_feed(f->reader, line, strlen(line), &err);
    resp_feed(f->reader, "\r\n", 2, &err);
    assert_int_equal(resp_next(f->reader, &request, &err), 1);
    enum command_result result = command_run(&f->house, &f->session, &request, &f->out);
    if (result == COMMAND_WAIT && !f->mesh.silent) {
        fake_mesh_run(&f->mesh);
        result = command_run(&f->house, &f->session, &request, &f->out);
    }
    return result;
}

/* The reply, good until the next command. */
static const char *reply(struct fixture *f, const char *line)
{
    buf_clear(&f->out);
    assert_int_equal(try_run(f, line), COMMAND_DONE);
    return buf_str(&f->out);
}

#define CHECK(f, line, expected) assert_string_equal(reply((f), (line)), (expected))

static void check_begins(struct fixture *f, const char *line, const char *expected)
{
    const char *text = reply(f, line);
    if (strncmp(text, expected, strlen(expected)) != 0)
        fail_msg("%s: %s", line, text);
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

static size_t unescape(const char *text, char *bytes)
{
    size_t len = 0;
    for (const char *at = text; *at && *at != '\n'; at++) {
        if (*at != '\\') {
            bytes[len++] = *at;
            continue;
        }
        at++;
        if (*at == 'x') {
            bytes[len++] = (char)(hex_digit(at[1]) << 4 | hex_digit(at[2]));
            at += 2;
        } else {
            bytes[len++] = (char)(*at == 'r' ? '\r' : *at == 'n' ? '\n' : *at);
        }
    }
    return len;
}

/* What redis-server 7.0.15 replied to the same commands, byte for byte: tests/vectors/resp.txt. */
static void test_command__replies_of_redis(void **state)
{
    (void)state;
    struct fixture f;
    char line[4096], answer[4096], bytes[4096];
    unsigned checked = 0;
    begin(&f);
    FILE *file = fopen("vectors/resp.txt", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (line[0] != '>')
            continue;
        assert_non_null(fgets(answer, sizeof answer, file));
        line[strcspn(line, "\n")] = 0;
        size_t len = unescape(answer, bytes);
        reply(&f, line + 2);
        if (f.out.len != len || memcmp(f.out.data, bytes, len) != 0)
            fail_msg("%s\nredis %s\nhere  %s", line, answer, buf_str(&f.out));
        checked++;
    }
    fclose(file);
    assert_true(checked > 200);
    assert_true(f.session.ending);
    end(&f);
}

static void test_command__table_is_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < command_count; i++) {
        assert_true(i == 0 || strcmp(commands[i - 1].name, commands[i].name) < 0);
        assert_ptr_equal(command_find(commands[i].name, strlen(commands[i].name)), &commands[i]);
        /* The set that is taken for call->set is there. */
        assert_true(commands[i].first_key == 0 || abs(commands[i].arity) > commands[i].first_key);
    }
    assert_null(command_find("zaddx", 5));
    assert_null(command_find("zad", 3));
    assert_null(command_find("", 0));
    assert_null(command_find("ping\0and more", 13));
    assert_non_null(command_find("ZAdd", 4));
}

static void test_command__says_what_it_does_not_have(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    check_begins(&f, "SET a b", "-ERR unknown command 'SET', with args beginning with: 'a' 'b' - sorted sets and");
    check_begins(&f, "MULTI", "-ERR multi is not supported: a mesh has no transactions");
    check_begins(&f, "PSUBSCRIBE a*", "-ERR psubscribe is not supported: channels are found by");
    CHECK(&f, "HELLO 3", "-NOPROTO unsupported protocol version\r\n");
    CHECK(&f, "SELECT 1", "-ERR DB index is out of range\r\n");
    check_begins(&f, "CONFIG SET save 1", "-ERR only CONFIG GET");
    end(&f);
}

static void test_command__bounds(void **state)
{
    (void)state;
    struct fixture f;
    char line[4096], word[2048];
    begin(&f);
    memset(word, 'x', sizeof word);
    snprintf(line, sizeof line, "ZADD k 1 %.512s", word);
    CHECK(&f, line, ":1\r\n");
    snprintf(line, sizeof line, "ZADD k 2 a 1 %.513s", word);
    check_begins(&f, line, "-ERR a member has 1 to 512 bytes");
    check_begins(&f, "ZADD k 1 \"\"", "-ERR a member has 1 to 512 bytes");
    CHECK(&f, "ZCARD k", ":1\r\n");
    snprintf(line, sizeof line, "ZADD %.1024s 1 a", word);
    CHECK(&f, line, ":1\r\n");
    snprintf(line, sizeof line, "EXISTS k %.1025s", word);
    check_begins(&f, line, "-ERR the name of a set has at most 1024 bytes");
    snprintf(line, sizeof line, "PUBLISH c %.481s", word);
    check_begins(&f, line, "-ERR a message has at most 480 bytes");
    snprintf(line, sizeof line, "SUBSCRIBE %.1025s", word);
    check_begins(&f, line, "-ERR the name of a channel has at most 1024 bytes");
    snprintf(line, sizeof line, "CLIENT SETNAME %.65s", word);
    check_begins(&f, line, "-ERR the name of a client has at most 64 bytes");
    end(&f);
}

static void test_command__views_are_read_only(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    fake_put_member(&f.mesh, "cmig:app:web:1", "00ff", 5, 10);
    CHECK(&f, "ZREVRANGE cmig:app:web:1 0 0 WITHSCORES", "*2\r\n$4\r\n00ff\r\n$1\r\n5\r\n");
    check_begins(&f, "ZADD cmig:app:web:1 1 a", "-READONLY ");
    check_begins(&f, "DEL k cmig:app:web:1", "-READONLY ");
    check_begins(&f, "EXPIRE cmig:app:web:1 1", "-READONLY ");
    check_begins(&f, "ZCARD cmig:nothing:x", "-ERR no such view");
    end(&f);
}

static void test_command__waits_for_sets(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    f.mesh.silent = true;
    assert_int_equal(try_run(&f, "EXISTS a b c"), COMMAND_WAIT);
    assert_int_equal(f.out.len, 0);
    assert_int_equal(f.mesh.open_count, 3); /* all at once */
    f.mesh.wall_ms += 2000;
    sets_tick(f.sets);
    check_begins(&f, "EXISTS a b c", "-TRYAGAIN ");
    f.mesh.silent = false;
    fake_mesh_run(&f.mesh);
    CHECK(&f, "EXISTS a b c", ":0\r\n");
    end(&f);
}

static void test_command__refuses_what_cannot_be_kept(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    f.disk->status = ERR_NOSPACE;
    CHECK(&f, "ZADD k 1 a", ":1\r\n");
    sets_commit(f.sets);
    disk_run(f.disk);
    CHECK(&f, "ZADD k 1 b", "-MISCONF nothing can be written now: the disk is full\r\n");
    CHECK(&f, "ZCARD k", ":1\r\n");
    f.disk->status = 0;
    f.mesh.wall_ms += 1000;
    sets_tick(f.sets);
    disk_run(f.disk);
    CHECK(&f, "ZADD k 1 b", ":1\r\n");
    end(&f);
}

static void test_command__scan_tells_all(void **state)
{
    (void)state;
    struct fixture f;
    char line[64];
    unsigned long long cursor = 0;
    size_t found = 0;
    begin(&f);
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, "ZADD big %d member:%d", i, i);
        CHECK(&f, line, ":1\r\n");
    }
    do {
        snprintf(line, sizeof line, "ZSCAN big %llu COUNT 50 MATCH *[5]", cursor);
        const char *text = reply(&f, line);
        assert_int_equal(sscanf(text, "*2\r\n$%*d\r\n%llu", &cursor), 1);
        for (const char *at = text; (at = strstr(at, "member:")); at++)
            found++;
    } while (cursor != 0);
    assert_int_equal(found, 100);
    for (int i = 0; i < 300; i++) {
        snprintf(line, sizeof line, "ZADD set%d 1 a", i);
        CHECK(&f, line, ":1\r\n");
    }
    found = 0;
    do {
        snprintf(line, sizeof line, "SCAN %llu MATCH set*", cursor);
        const char *text = reply(&f, line);
        assert_int_equal(sscanf(text, "*2\r\n$%*d\r\n%llu", &cursor), 1);
        for (const char *at = text; (at = strstr(at, "set")); at++)
            found++;
    } while (cursor != 0);
    assert_int_equal(found, 300);
    CHECK(&f, "DBSIZE", ":301\r\n");
    end(&f);
}

static void test_command__delivers_messages(void **state)
{
    (void)state;
    struct fixture f;
    size_t receivers = 0;
    struct err err;
    begin(&f);
    reply(&f, "SUBSCRIBE news");
    assert_int_equal(f.mesh.listening, 1);
    assert_int_equal(channels_publish(f.channels, "news", 4, "hi", 2, &receivers, &err), 0);
    assert_int_equal(receivers, 1);
    assert_int_equal(f.mesh.published, 1);
    assert_string_equal(buf_str(&f.pushed), "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    reply(&f, "UNSUBSCRIBE");
    assert_int_equal(f.mesh.listening, 0);
    assert_int_equal(channels_count(f.channels), 0);
    CHECK(&f, "PUBLISH news x", ":0\r\n");
    end(&f);
}

static void test_command__about_itself(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    check_begins(&f, "HELLO 2 SETNAME me", "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n");
    CHECK(&f, "CLIENT GETNAME", "$2\r\nme\r\n");
    CHECK(&f, "CLIENT ID", ":7\r\n");
    assert_non_null(strstr(reply(&f, "CLIENT LIST"), "id=7 addr="));
    assert_non_null(strstr(reply(&f, "INFO"), "redis_version:7.0.15\r\n"));
    assert_non_null(strstr(reply(&f, "INFO mesh"), "# Mesh\r\nsets_in_memory:"));
    assert_null(strstr(reply(&f, "INFO clients"), "redis_version"));
    CHECK(&f, "INFO nothing", "$0\r\n\r\n");
    CHECK(
        &f, "COMMAND INFO zadd nothing",
        "*2\r\n*10\r\n$4\r\nzadd\r\n:-4\r\n*2\r\n+write\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n$-1\r\n");
    check_begins(&f, "COMMAND DOCS zadd nothing", "*2\r\n$4\r\nzadd\r\n*4\r\n$7\r\nsummary\r\n");
    CHECK(&f, "CONFIG GET append*", "*4\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
    end(&f);
}

static bool contains_word(const char *text, const char *word)
{
    for (const char *at = text; (at = strstr(at, word)); at++) {
        char before = at > text ? at[-1] : ' ', after = at[strlen(word)];
        if (!isalnum((unsigned char)before) && !isalnum((unsigned char)after))
            return true;
    }
    return false;
}

/* docs/registry.md names every command, in its table. */
static void test_command__docs(void **state)
{
    (void)state;
    static char text[65536];
    FILE *file = fopen("../docs/registry.md", "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *end = strstr(text, "\n## What is different");
    assert_non_null(end);
    *end = 0;
    for (size_t i = 0; i < command_count; i++) {
        char name[32] = "";
        for (size_t j = 0; commands[i].name[j]; j++)
            name[j] = (char)toupper((unsigned char)commands[i].name[j]);
        if (!contains_word(text, name))
            fail_msg("docs/registry.md does not name %s", name);
    }
}

static bool matches(const char *pattern, const char *text)
{
    return command_matches(pattern, strlen(pattern), text, strlen(text));
}

static void test_command__patterns(void **state)
{
    (void)state;
    assert_true(matches("", "") && matches("*", "") && matches("**", "abc") && matches("a*c*e", "abcde"));
    assert_true(matches("h[a-c]llo", "hbllo") && matches("h[^e]llo", "hallo") && matches("h?llo", "hxllo"));
    assert_true(matches("\\*", "*") && matches("[\\]]", "]") && matches("a[b", "ab") && matches("[z-a]", "m"));
    assert_false(matches("", "a") || matches("a", "") || matches("\\*", "x") || matches("h[^e]llo", "hello"));
    assert_false(matches("*a", "ab") || matches("?", "") || matches("[a-c]", "d"));
    /* It does not take forever (CVE-2022-36021). */
    char pattern[201], text[1001];
    for (int i = 0; i < 200; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[200] = 0;
    memset(text, 'a', 1000);
    text[999] = 'b';
    text[1000] = 0;
    assert_false(matches(pattern, text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command__replies_of_redis),
        cmocka_unit_test(test_command__table_is_in_order),
        cmocka_unit_test(test_command__says_what_it_does_not_have),
        cmocka_unit_test(test_command__bounds),
        cmocka_unit_test(test_command__views_are_read_only),
        cmocka_unit_test(test_command__waits_for_sets),
        cmocka_unit_test(test_command__refuses_what_cannot_be_kept),
        cmocka_unit_test(test_command__scan_tells_all),
        cmocka_unit_test(test_command__delivers_messages),
        cmocka_unit_test(test_command__about_itself),
        cmocka_unit_test(test_command__patterns),
        cmocka_unit_test(test_command__docs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
