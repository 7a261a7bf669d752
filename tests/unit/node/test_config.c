#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/id.h"
#include "node/config_keys.h"

static struct err err;

static char dir[] = "/tmp/cmig-config-XXXXXX";
static char *conf; /* the file that load() reads */

static int make_dir(void **state)
{
    (void)state;
    conf = mkdtemp(dir) ? file_path("%s/node.conf", dir) : NULL;
    return conf ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    free(conf);
    return file_remove_tree(dir, NULL);
}

/* cmig-node --config <a file of this text> and the flags; NULL ends them. */
#define LOAD(config, text, ...) load(config, NULL, text, (char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
static int load(struct config **ret_config, const struct config_option *options, const char *text, char **flags)
{
    char *argv[32] = {"cmig-node", "--config", conf};
    int argc = 3;
    while (*flags)
        argv[argc++] = *flags++;
    err_clear(&err);
    assert_int_equal(file_write_atomic(conf, text, strlen(text), 0600, NULL), 0);
    return config_load(argc, argv, options, ret_config, &err);
}

static void assert_refused(const char *text, const char *message)
{
    struct config *config = NULL;
    assert_int_equal(LOAD(&config, text), ERR_INVALID);
    assert_null(config);
    if (!strstr(err.text, message))
        fail_msg("'%s' is not in '%s'", message, err.text);
}

static void test_config__defaults(void **state)
{
    (void)state;
    OWNED(owned_config) struct config *config = NULL;
    assert_int_equal(LOAD(&config, ""), 0);
    assert_int_equal(config->listen_count, 2);
    char text[ADDR_TEXT_SIZE];
    assert_string_equal(addr_text(&config->listen[0], text), "[::]:7421");
    assert_string_equal(addr_text(&config->listen[1], text), "0.0.0.0:7421");
    assert_int_equal(config->advertise.family, 0);
    assert_int_equal(config->log, LOG_INFO);
    assert_int_equal(config->workers, 4);
    assert_int_equal(config->quota_bytes, 0);
    assert_int_equal(config->floor.percent, 5);
    assert_int_equal(config->floor.bytes, 10ull << 30);
    assert_int_equal(config->bandwidth.up.total, 0);
    assert_int_equal(config->log_max_bytes, 10u << 20);
    assert_string_equal(config->runc, "runc");
    assert_true(strcmp(config->criu, "criu") == 0 || strcmp(config->criu, "/opt/cmig/bin/criu") == 0);
    assert_string_equal(config->api_group, "cmig");
    assert_true(name_is_valid(config->name));
    assert_int_equal(config->peer_count, 0);
}

static void test_config__file_is_read(void **state)
{
    (void)state;
    OWNED(owned_config) struct config *config = NULL;
    const char *text =
        "; comment\n# comment\n[node]\ndir = /srv/node a\nname=edge-7 ; comment\nlog = debug\r\nworkers=8\n"
        "[network]\nlisten = 127.0.0.1:7000, [::1]\nadvertise = 192.0.2.1:9\nbandwidth = up=1.5M peer-down=2K\n  "
        "prefetch-up=3\n"
        "peers = a.example b:1\n  [::1]:7\npeers = 10.0.0.1\n"
        "[store]\nquota = 2T\nfloor = 7%\n"
        "[runtime]\nrunc = /opt/runc\ncriu = criu4\nlog_max = 64K\n"
        "[api]\napi_group = ops";
    assert_int_equal(LOAD(&config, text), 0);
    assert_string_equal(config->dir, "/srv/node a");
    assert_string_equal(config->socket, "/srv/node a/node.sock");
    assert_string_equal(config->name, "edge-7");
    assert_int_equal(config->log, LOG_DEBUG);
    assert_int_equal(config->workers, 8);
    char addr[ADDR_TEXT_SIZE];
    assert_int_equal(config->listen_count, 2);
    assert_string_equal(addr_text(&config->listen[0], addr), "127.0.0.1:7000");
    assert_string_equal(addr_text(&config->listen[1], addr), "[::1]:7421");
    assert_string_equal(addr_text(&config->advertise, addr), "192.0.2.1:9");
    assert_int_equal(config->bandwidth.up.total, 3u << 19);
    assert_int_equal(config->bandwidth.down.peer, 2048);
    assert_int_equal(config->bandwidth.up.classes[EXCHANGE_PREFETCH], 3);
    assert_int_equal(config->bandwidth.down.total, 0);
    assert_int_equal(config->peer_count, 4);
    assert_string_equal(config->peers[2], "[::1]:7");
    assert_int_equal(config->quota_bytes, 2ull << 40);
    assert_int_equal(config->floor.percent, 7);
    assert_int_equal(config->floor.bytes, 0);
    assert_string_equal(config->runc, "/opt/runc");
    assert_string_equal(config->criu, "criu4");
    assert_int_equal(config->log_max_bytes, 65536);
    assert_string_equal(config->api_group, "ops");
}

static void test_config__flags_win_over_the_file(void **state)
{
    (void)state;
    OWNED(owned_config) struct config *config = NULL;
    assert_int_equal(LOAD(&config, "[node]\nname = a\nworkers = 2\n[network]\npeers = x y z\n", "--name=b", "--log-max",
                          "1M", "--peers", "q", "--peers=r", "--floor", "0"),
                     0);
    assert_string_equal(config->name, "b");
    assert_int_equal(config->workers, 2);
    assert_int_equal(config->log_max_bytes, 1u << 20);
    assert_int_equal(config->peer_count, 2);
    assert_string_equal(config->peers[0], "q");
    assert_string_equal(config->peers[1], "r");
    assert_int_equal(config->floor.percent, 0);
    assert_int_equal(config->floor.bytes, 0);
}

static void test_config__words_and_the_commands_own_flags(void **state)
{
    (void)state;
    const char *uses = NULL, *json = NULL, *ttl = NULL;
    const struct config_option options[] = {
        {"uses", "N", "", &uses}, {"json", NULL, "", &json}, {"ttl", "T", "", &ttl}, {NULL, NULL, NULL, NULL}};
    OWNED(owned_config) struct config *config = NULL;
    char *flags[] = {"invite", "--uses", "3", "x", "--json", "--", "--name", "-", NULL};
    assert_int_equal(load(&config, options, "", flags), 0);
    assert_string_equal(uses, "3");
    assert_string_equal(json, "");
    assert_null(ttl);
    assert_int_equal(config->word_count, 4);
    assert_string_equal(config->words[0], "invite");
    assert_string_equal(config->words[2], "--name");
    assert_string_equal(config->words[3], "-");

    struct config *none = NULL;
    assert_int_equal(load(&none, options, "", (char *[]){"--json=1", NULL}), ERR_INVALID);
    assert_int_equal(load(&none, options, "", (char *[]){"--uses", NULL}), ERR_INVALID);
    assert_non_null(strstr(err.text, "--uses needs a value"));
    assert_int_equal(load(&none, options, "", (char *[]){"--use", "1", NULL}), ERR_INVALID);
    assert_non_null(strstr(err.text, "--uses was perhaps meant"));
}

static void test_config__help_and_version_ask_for_nothing_else(void **state)
{
    (void)state;
    char *help[] = {"cmig-node", "-h", "--config", "/nonexistent"};
    OWNED(owned_config) struct config *config = NULL;
    assert_int_equal(config_load(4, help, NULL, &config, &err), 0);
    assert_true(config->help);
    char *version[] = {"cmig-node", "--version"};
    OWNED(owned_config) struct config *other = NULL;
    assert_int_equal(config_load(2, version, NULL, &other, &err), 0);
    assert_true(other->version);
}

static void test_config__errors_name_the_place(void **state)
{
    (void)state;
    OWNED(owned_free) char *second = file_path("%s:2: ", conf);
    assert_refused("[node]\nquota = 1G\n", second);
    assert_refused("[node]\nquota = 1G\n", "'quota' belongs in [store], not in [node]");
    assert_refused("name = x\n", "belongs in [node], not in []");
    assert_refused("[store]\nquata = 1G\n", "'quota' was perhaps meant");
    assert_refused("[store]\nentirely_else = 1\n", "--help lists them");
    assert_refused("[node]\nlog = loud\n", "'log = loud': must be error, warn, info or debug");
    assert_refused("[node]\nname = a\nname = b\n", "'name' is given twice");
    assert_refused("[node]\nname =\n", "is empty");
    assert_refused("[node]\nnonsense\n", second);
    assert_refused("[node\nname = a\n", ":1: ");
    assert_refused("[node]\nname = a\x01\n", "control character");
    struct config *config = NULL;
    assert_int_equal(LOAD(&config, "", "--qouta", "1G"), ERR_INVALID);
    assert_non_null(strstr(err.text, "--quota was perhaps meant"));
    assert_int_equal(LOAD(&config, "", "--quota=x"), ERR_INVALID);
    assert_non_null(strstr(err.text, "command line: 'quota = x': must be"));
    assert_int_equal(LOAD(&config, "", "--quota"), ERR_INVALID);
    assert_int_equal(LOAD(&config, "", "--name=a", "--name=b"), ERR_INVALID);
    assert_int_equal(LOAD(&config, "", "-x"), ERR_INVALID);
    char *missing[] = {"cmig-node", "--config", "/nonexistent/node.conf"};
    assert_int_equal(config_load(3, missing, NULL, &config, &err), ERR_NOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/node.conf"));
    assert_null(config);
}

static void test_config__hostile_values_are_refused(void **state) /* faults 47 */
{
    (void)state;
    const char *bad[][2] = {
        {"name", "-oProxyCommand=x"},
        {"name", "../x"},
        {"name", "a b"},
        {"name", "a/b"},
        {"name", "\xff\xfe"},
        {"name", ".."},
        {"api_group", "a:b"},
        {"dir", "relative"},
        {"dir", "~"},
        {"socket", "node.sock"},
        {"runc", "./runc"},
        {"runc", "-x"},
        {"criu", "a;b/c"},
        {"listen", "host:1"},
        {"listen", "1.2.3.4:0"},
        {"listen", "1.2.3.4:65536"},
        {"listen", "224.0.0.1"},
        {"listen", ","},
        {"advertise", "0.0.0.0"},
        {"advertise", "[::]:1"},
        {"peers", "-x"},
        {"peers", "a:0"},
        {"peers", "a b:x"},
        {"peers", "a..b"},
        {"workers", "0"},
        {"workers", "65"},
        {"workers", "-1"},
        {"workers", "4K"},
        {"workers", "1e3"},
        {"bandwidth", "up"},
        {"bandwidth", "up="},
        {"bandwidth", "=1"},
        {"bandwidth", "up=-1"},
        {"bandwidth", "up=1P"},
        {"bandwidth", "up=99999999999999999999"},
        {"bandwidth", "sideways=1"},
        {"bandwidth", "prefetch-up-down=1"},
        {"bandwidth", "a-name-that-nobody-would-ever-think-of=1"},
        {"quota", "0"},
        {"quota", "1023K"},
        {"quota", "unlimited"},
        {"floor", "100%"},
        {"floor", "-1%"},
        {"floor", "%"},
        {"floor", "1.5%"},
        {"floor", "5 %"},
        {"log_max", "1"},
        {"log_max", "2T"},
        {"log", "INFO"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t index = config_entry_find(bad[i][0], strlen(bad[i][0]));
        assert_true(index < CONFIG_KEYS);
        OWNED(owned_free)
        char *text = file_path("[%s]\n%s = %s\n", config_entry_at(index)->key.section, bad[i][0], bad[i][1]);
        if (config_check(text, strlen(text), "test", &err) != ERR_INVALID)
            fail_msg("accepted: %s", text);
        assert_int_equal(strncmp(err.text, "test:2: ", 8), 0);
    }
}

static void test_config__sizes_are_bounded(void **state)
{
    (void)state;
    char line[400] = "[node]\nname = ";
    memset(line + strlen(line), 'a', 300);
    assert_int_equal(config_check(line, strlen(line), "test", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "test:2: the line is too long"));
    OWNED(owned_free) char *large = calloc(1, CONFIG_MAX_BYTES + 1);
    memset(large, '\n', CONFIG_MAX_BYTES + 1);
    assert_int_equal(config_check(large, CONFIG_MAX_BYTES, "test", &err), 0);
    assert_int_equal(config_check(large, CONFIG_MAX_BYTES + 1, "test", &err), ERR_LIMIT);

    OWNED(buf_release) struct buf peers = BUF(4096);
    buf_add_str(&peers, "[network]\n");
    for (int i = 0; i <= CONFIG_MAX_PEERS; i++)
        buf_addf(&peers, "peers = p%d\n", i);
    assert_int_equal(config_check((char *)peers.data, peers.len, "test", &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "test:34: "));
    const char *listen = "[network]\nlisten = 127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.5\n";
    assert_int_equal(config_check(listen, strlen(listen), "test", &err), ERR_INVALID);
}

static void test_config__bytes(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"512", 512},
                {"1K", 1024},
                {"3M", 3u << 20},
                {"1.5G", 3ull << 29},
                {"0.5K", 512},
                {"8T", 8ull << 40},
                {"9223372036854775808", 1ull << 63},
                {"8388608T", 1ull << 63},
                {"1.000001K", 1024}};
    const char *bad[] = {"",
                         "K",
                         "1k",
                         "1KB",
                         "1.K",
                         ".5K",
                         "1.5",
                         "1 K",
                         "+1",
                         "-1",
                         "0x1",
                         "1e3",
                         "nan",
                         "inf",
                         "1.1234567K",
                         "8388609T",
                         "9223372036854775809",
                         "99999999999999999999999"};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(config_parse_bytes(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (config_parse_bytes(bad[i], &bytes))
            fail_msg("accepted: %s", bad[i]);
}

static void assert_paths(const char *chosen, struct config_place place, const char *expected_dir,
                         const char *expected_socket)
{
    OWNED(owned_config) struct config *config = calloc(1, sizeof *config);
    config->dir = chosen ? strdup(chosen) : NULL;
    assert_int_equal(config_fill_defaults(config, &place, &err), 0);
    assert_string_equal(config->dir, expected_dir);
    assert_string_equal(config->socket, expected_socket);
}

static void test_config__default_places(void **state)
{
    (void)state;
    struct config_place root = {.root = true, .home = "/root", .runtime_dir = "/run/user/0"};
    struct config_place user = {.home = "/home/u", .runtime_dir = "/run/user/1000"};
    struct config_place xdg = {.home = "/home/u", .state_home = "/state"};
    struct config_place odd = {.home = "/home/u", .state_home = "relative", .runtime_dir = "relative"};
    assert_paths(NULL, root, "/var/lib/cmig", "/run/cmig/node.sock");
    assert_paths("/srv/n2", root, "/srv/n2", "/srv/n2/node.sock");
    assert_paths("/var/lib/cmig", root, "/var/lib/cmig", "/run/cmig/node.sock");
    assert_paths(NULL, user, "/home/u/.local/state/cmig", "/run/user/1000/cmig/node.sock");
    assert_paths("/srv/n2", user, "/srv/n2", "/srv/n2/node.sock");
    assert_paths(NULL, xdg, "/state/cmig", "/state/cmig/node.sock");
    assert_paths(NULL, odd, "/home/u/.local/state/cmig", "/home/u/.local/state/cmig/node.sock");

    OWNED(owned_config) struct config *plain = calloc(1, sizeof *plain);
    assert_int_equal(config_fill_defaults(plain, &root, &err), 0);
    assert_string_equal(plain->criu, "criu");
    OWNED(owned_config) struct config *set_up = calloc(1, sizeof *set_up);
    root.setup_criu = "/opt/cmig/bin/criu";
    assert_int_equal(config_fill_defaults(set_up, &root, &err), 0);
    assert_string_equal(set_up->criu, "/opt/cmig/bin/criu");

    OWNED(owned_config) struct config *nowhere = calloc(1, sizeof *nowhere);
    struct config_place none = {0};
    assert_int_equal(config_fill_defaults(nowhere, &none, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "--dir"));
    char deep[128] = "/";
    memset(deep + 1, 'd', 120);
    nowhere->dir = strdup(deep);
    assert_int_equal(config_fill_defaults(nowhere, &none, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "--socket"));
}

static void test_config__relative_flags_are_from_here(void **state)
{
    (void)state;
    OWNED(owned_config) struct config *config = NULL;
    OWNED(owned_free) char *here = getcwd(NULL, 0);
    OWNED(owned_free) char *expected = file_path("%s/n1", here);
    assert_int_equal(LOAD(&config, "", "--dir", "n1", "--socket", "/run/s", "--runc", "runc2"), 0);
    assert_string_equal(config->dir, expected);
    assert_string_equal(config->socket, "/run/s");
    assert_string_equal(config->runc, "runc2");
}

static void test_config__example_is_the_table(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf example = BUF(CONFIG_MAX_BYTES);
    OWNED(buf_release) struct buf kept = BUF(CONFIG_MAX_BYTES);
    config_example(&example);
    assert_int_equal(file_read("../docs/node.conf", &kept, &err), 0);
    assert_string_equal(buf_str(&example), buf_str(&kept));
    assert_int_equal(config_check((char *)kept.data, kept.len, "docs/node.conf", &err), 0);

    /* with every key in force it is good too */
    OWNED(buf_release) struct buf live = BUF(CONFIG_MAX_BYTES);
    for (char *rest = (char *)kept.data, *line; (line = strsep(&rest, "\n"));) {
        bool is_key = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z';
        buf_addf(&live, "%s\n", line + is_key);
    }
    if (config_check((char *)live.data, live.len, "example", &err) < 0)
        fail_msg("%s", err.text);
}

static void test_config__help_tells_every_key(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf help = BUF(CONFIG_MAX_BYTES);
    config_help(&help);
    struct config_key key;
    size_t count = 0;
    for (; config_key_at(count, &key); count++) {
        OWNED(owned_free) char *flag = file_path("  --%s %s\n", key.name, key.unit);
        assert_non_null(strstr(buf_str(&help), flag));
    }
    assert_int_equal(count, CONFIG_KEYS);
    for (char *rest = (char *)help.data, *line; (line = strsep(&rest, "\n"));)
        assert_true(strlen(line) <= 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__defaults),
        cmocka_unit_test(test_config__file_is_read),
        cmocka_unit_test(test_config__flags_win_over_the_file),
        cmocka_unit_test(test_config__words_and_the_commands_own_flags),
        cmocka_unit_test(test_config__help_and_version_ask_for_nothing_else),
        cmocka_unit_test(test_config__errors_name_the_place),
        cmocka_unit_test(test_config__hostile_values_are_refused),
        cmocka_unit_test(test_config__sizes_are_bounded),
        cmocka_unit_test(test_config__bytes),
        cmocka_unit_test(test_config__default_places),
        cmocka_unit_test(test_config__relative_flags_are_from_here),
        cmocka_unit_test(test_config__example_is_the_table),
        cmocka_unit_test(test_config__help_tells_every_key),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
