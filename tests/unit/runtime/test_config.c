#include "tests/test.h"

#include <string.h>

#include "node/base/scope.h"
#include "node/runtime/config.h"
#include "node/runtime/spec.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

static struct runtime_volume volumes[] = {
    {.guid = {{2}}, .path = "/srv/data/inner", .read_only = true},
    {.guid = {{1}}, .path = "/srv/data"},
};
static char *args[] = {"/bin/web", "--port", "80; rm -rf /"};
static char *env[] = {"A=1"};

static struct runtime_spec spec_for(uint32_t uid)
{
    return (struct runtime_spec){.name = "a-name-that-is-longer-than-sixty-three-bytes-as-those-of-some-people-are",
                                 .image = "web:1",
                                 .workdir = "/srv",
                                 .uid = uid,
                                 .gid = uid,
                                 .args = {args, 3},
                                 .env = {env, 1},
                                 .volumes = volumes,
                                 .volume_count = 2};
}

static json_t *config_for(const struct runtime_spec *spec)
{
    const struct runtime_config config = {.spec = spec,
                                          .bundle = "/state/containers/x/bundle",
                                          .log = "/state/containers/x/rw/log",
                                          .exec_helper = "/usr/libexec/cmig-exec",
                                          .volumes_dir = "/state/volumes",
                                          .cgroup = "/cmig-abc-x"};
    json_t *json = runtime_config_to_json(&config);
    assert_non_null(json);
    return json;
}

static const json_t *at(const json_t *json, const char *path)
{
    char copy[128];
    strcpy(copy, path);
    char *rest = copy;
    for (char *key; (key = strsep(&rest, "."));)
        json = json_object_get(json, key);
    return json;
}

static const json_t *mount_at(const json_t *config, const char *destination, size_t *ret_index)
{
    size_t i;
    json_t *mount;
    json_array_foreach(json_object_get(config, "mounts"), i, mount)
    {
        if (strcmp(json_string_value(json_object_get(mount, "destination")), destination) != 0)
            continue;
        *ret_index = i;
        return mount;
    }
    return NULL;
}

static bool has(const json_t *array, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item) if (strcmp(json_string_value(item), text) == 0) return true;
    return false;
}

static void test_config__the_program_is_started_by_the_helper(void **state)
{
    (void)state;
    struct runtime_spec spec = spec_for(0);
    OWNED(owned_json) json_t *json = config_for(&spec);
    OWNED(owned_json)
    json_t *expected = json_pack("[s, s, s, s, s]", "/.cmig/exec", "/.cmig/log", "/bin/web", "--port", "80; rm -rf /");
    assert_true(json_equal(at(json, "process.args"), expected));
    assert_true(has(at(json, "process.env"), "A=1"));
    assert_int_equal(json_array_size(at(json, "process.env")), 2); /* and a PATH */
    assert_string_equal(json_string_value(at(json, "process.cwd")), "/srv");
    assert_int_equal(strlen(json_string_value(at(json, "hostname"))), 63);
}

static void test_config__rights_are_few(void **state)
{
    (void)state;
    struct runtime_spec spec = spec_for(0), other = spec_for(1000);
    OWNED(owned_json) json_t *root = config_for(&spec);
    OWNED(owned_json) json_t *user = config_for(&other);
    static const char *const never[] = {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_NET_ADMIN",
                                        "CAP_NET_RAW",   "CAP_MKNOD",      "CAP_SYS_CHROOT", "CAP_DAC_READ_SEARCH"};
    assert_true(has(at(root, "process.capabilities.effective"), "CAP_SETUID"));
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        assert_false(has(at(root, "process.capabilities.bounding"), never[i]));
    assert_null(at(user, "process.capabilities.effective"));
    assert_null(at(user, "process.capabilities.ambient"));
    assert_int_equal(json_integer_value(at(user, "process.user.uid")), 1000);
    assert_true(json_is_true(at(root, "process.noNewPrivileges")));
    assert_null(at(root, "process.rlimits")); /* gotcha 26: none above our own hard ones, so none */
    assert_null(at(root, "hooks"));
    assert_null(at(root, "linux.devices"));
    assert_true(has(at(root, "linux.maskedPaths"), "/proc/kcore"));
}

static void test_config__namespaces_are_all_but_the_network(void **state)
{
    (void)state;
    struct runtime_spec spec = spec_for(0);
    OWNED(owned_json) json_t *json = config_for(&spec);
    OWNED(owned_json)
    json_t *expected = json_pack("[{s:s}, {s:s}, {s:s}, {s:s}, {s:s}]", "type", "pid", "type", "ipc", "type", "uts",
                                 "type", "mount", "type", "user");
    assert_true(json_equal(at(json, "linux.namespaces"), expected));
}

static void test_config__volumes_are_mounted_outer_first(void **state)
{
    (void)state;
    struct runtime_spec spec = spec_for(0);
    OWNED(owned_json) json_t *json = config_for(&spec);
    size_t outer_index, inner_index;
    const json_t *outer = mount_at(json, "/srv/data", &outer_index);
    const json_t *inner = mount_at(json, "/srv/data/inner", &inner_index);
    assert_non_null(outer);
    assert_non_null(inner);
    assert_true(outer_index < inner_index);
    assert_true(has(json_object_get(outer, "options"), "rw"));
    assert_true(has(json_object_get(inner, "options"), "ro"));
    assert_string_equal(json_string_value(json_object_get(outer, "source")),
                        "/state/volumes/01000000-0000-0000-0000-000000000000");
}

/* Invariant 4 of runtime.h, and gotcha 1: the log is a file on a mount of its own. */
static void test_config__the_log_and_the_helper_are_mounts(void **state)
{
    (void)state;
    struct runtime_spec spec = spec_for(0);
    OWNED(owned_json) json_t *json = config_for(&spec);
    size_t index;
    const json_t *log = mount_at(json, "/.cmig/log", &index);
    const json_t *helper = mount_at(json, "/.cmig/exec", &index);
    assert_string_equal(json_string_value(json_object_get(log, "source")), "/state/containers/x/rw/log");
    assert_true(has(json_object_get(helper, "options"), "ro"));
    assert_true(json_is_false(at(json, "process.terminal")));
}

/* faults 75: what CRIU reads beside its images is ours, whatever annotations anybody would like. */
static void test_config__annotations_are_ours_alone(void **state)
{
    (void)state;
    char *labels[] = {"org.criu.config=/tmp/evil.conf"};
    struct runtime_spec spec = spec_for(0);
    spec.labels = (struct runtime_strings){labels, 1};
    OWNED(owned_json) json_t *json = config_for(&spec);
    assert_int_equal(json_object_size(at(json, "annotations")), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(json, "annotations"), "org.criu.config")),
                        "/state/containers/x/bundle/criu.conf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__the_program_is_started_by_the_helper),
        cmocka_unit_test(test_config__rights_are_few),
        cmocka_unit_test(test_config__namespaces_are_all_but_the_network),
        cmocka_unit_test(test_config__volumes_are_mounted_outer_first),
        cmocka_unit_test(test_config__the_log_and_the_helper_are_mounts),
        cmocka_unit_test(test_config__annotations_are_ours_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
