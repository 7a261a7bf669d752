/* What an image's config says about a container, from an OCI image layout made here. */
#include "tests/unit/runtime/containers.h"

#include <sys/utsname.h>

/* Write `data` as a blob of the layout; its descriptor. */
static json_t *blob(const char *layout, const char *type, const void *data, size_t len)
{
    struct id digest;
    char text[DIGEST_TEXT_SIZE];
    struct err err = {0};
    crypto_sha256(data, len, &digest);
    digest_text(&digest, text);
    OWNED(owned_free) char *path = file_path("%s/blobs/sha256/%s", layout, text + 7);
    ASSERT_OK(file_write_atomic(path, data, len, 0644, &err), err);
    return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", text, "size", (json_int_t)len);
}

static json_t *json_blob(const char *layout, const char *type, const json_t *json)
{
    OWNED(owned_free) char *text = json_dumps(json, JSON_COMPACT);
    return blob(layout, type, text, strlen(text));
}

static void write_json(const char *layout, const char *name, const json_t *json)
{
    OWNED(owned_free) char *text = json_dumps(json, JSON_COMPACT);
    OWNED(owned_free) char *path = file_path("%s/%s", layout, name);
    struct err err = {0};
    ASSERT_OK(file_write_atomic(path, text, strlen(text), 0644, &err), err);
}

/* A layer with `passwd` as etc/passwd, or with none. */
static void make_layer(struct machine *machine, const char *name, const char *passwd, struct buf *tar)
{
    OWNED(owned_free) char *etc = file_path("%s/%s/etc", machine->dir, name);
    OWNED(owned_free) char *root = file_path("%s/%s", machine->dir, name);
    OWNED(owned_free) char *path = file_path("%s/%s.tar", machine->dir, name);
    OWNED(owned_free) char *users = file_path("%s/passwd", etc);
    OWNED(owned_free) char *groups = file_path("%s/group", etc);
    struct err err = {0};
    ASSERT_OK(file_make_dirs(etc, 0755, &err), err);
    if (passwd)
        ASSERT_OK(file_write_atomic(users, passwd, strlen(passwd), 0644, &err), err);
    ASSERT_OK(file_write_atomic(groups, "web:x:33:\nlogs:x:50:web\n", 24, 0644, &err), err);
    assert_int_equal(RUN("tar", "-C", root, "-cf", path, "."), 0);
    ASSERT_OK(file_read(path, tar, &err), err);
}

/* Import an image "app:1" of two layers with this runtime config. */
static void import_app(struct machine *machine, const char *config_json)
{
    OWNED(owned_free) char *layout = file_path("%s/layout", machine->dir);
    OWNED(owned_free) char *blobs = file_path("%s/blobs/sha256", layout);
    struct err err = {0};
    ASSERT_OK(file_remove_tree(layout, &err), err);
    ASSERT_OK(file_make_dirs(blobs, 0755, &err), err);
    static const char *const users[] = {"root:x:0:0::/:\nweb:x:1:1::/:\n",
                                        "root:x:0:0::/:/bin/sh\nweb:x:1033:1034::/srv:\nhuge:x:70000:1::/:\nbad\n"};
    json_t *layers = json_array(), *diff_ids = json_array();
    for (size_t i = 0; i < 2; i++) {
        OWNED(buf_release) struct buf tar = BUF(1 << 20);
        make_layer(machine, i == 0 ? "lower" : "upper", users[i], &tar);
        json_t *layer = blob(layout, "application/vnd.oci.image.layer.v1.tar", tar.data, tar.len);
        json_array_append(diff_ids, json_object_get(layer, "digest"));
        json_array_append_new(layers, layer);
    }
    struct utsname host;
    uname(&host);
    const char *architecture = strcmp(host.machine, "aarch64") == 0 ? "arm64" : "amd64";
    OWNED(owned_json)
    json_t *config = json_pack("{s:s, s:s, s:o, s:{s:s, s:o}}", "architecture", architecture, "os", "linux", "config",
                               json_loads(config_json, 0, NULL), "rootfs", "type", "layers", "diff_ids", diff_ids);
    OWNED(owned_json)
    json_t *manifest =
        json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", "application/vnd.oci.image.manifest.v1+json",
                  "config", json_blob(layout, "application/vnd.oci.image.config.v1+json", config), "layers", layers);
    OWNED(owned_json)
    json_t *index = json_pack("{s:i, s:[o]}", "schemaVersion", 2, "manifests",
                              json_blob(layout, "application/vnd.oci.image.manifest.v1+json", manifest));
    OWNED(owned_json) json_t *version = json_pack("{s:s}", "imageLayoutVersion", "1.0.0");
    write_json(layout, "index.json", index);
    write_json(layout, "oci-layout", version);
    const struct image_import_options options = {
        .format = IMAGE_FORMAT_OCI, .name = "app:1", .scratch_dir = machine->dir};
    ASSERT_OK(image_import(machine->a.store, layout, &options, NULL, &err), err);
}

static int fill(struct machine *machine, const char *spec_json, struct runtime_spec *ret_spec, struct err *err)
{
    OWNED(owned_json) json_t *json = json_loads(spec_json, 0, NULL);
    assert_non_null(json);
    ASSERT_OK(runtime_spec_from_json(json, ret_spec, err), *err);
    return runtime_fill(machine->a.runtime, ret_spec, err);
}

static void assert_strings(const struct runtime_strings *strings, const char *joined)
{
    char text[1024] = "";
    for (size_t i = 0; i < strings->count; i++) {
        strcat(text, strings->items[i]);
        strcat(text, "|");
    }
    assert_string_equal(text, joined);
}

#define CONFIG                                                                                                         \
    "\"Entrypoint\":[\"/bin/app\",\"--serve\"],\"Cmd\":[\"all\"],\"Env\":[\"PATH=/bin\",\"MODE=slow\"],"               \
    "\"WorkingDir\":\"/srv/\",\"Labels\":{\"tier\":\"front\"}"

static void test_fill__the_image_completes_what_is_open(void **state)
{
    struct machine *machine = *state;
    struct err err = {0};
    import_app(machine, "{" CONFIG ",\"User\":\"web\"}");
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    ASSERT_OK(fill(machine, "{\"name\":\"a\",\"image\":\"app:1\"}", &spec, &err), err);
    assert_false(id_is_zero(&spec.manifest));
    assert_strings(&spec.args, "/bin/app|--serve|all|");
    assert_strings(&spec.env, "PATH=/bin|MODE=slow|");
    assert_strings(&spec.labels, "tier=front|");
    assert_string_equal(spec.workdir, "/srv");
    assert_int_equal(spec.uid, 1033); /* of the upper layer's passwd */
    assert_int_equal(spec.gid, 1034);
}

static void test_fill__the_user_decides_what_he_says(void **state)
{
    struct machine *machine = *state;
    struct err err = {0};
    import_app(machine, "{" CONFIG ",\"User\":\"web:logs\"}");
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    ASSERT_OK(fill(machine,
                   "{\"name\":\"a\",\"image\":\"app:1\",\"args\":[\"some\"],\"env\":[\"MODE=fast\",\"X=1\"],"
                   "\"labels\":[\"tier=back\"],\"workdir\":\"/tmp\",\"uid\":7,\"gid\":8}",
                   &spec, &err),
              err);
    assert_strings(&spec.args, "/bin/app|--serve|some|");
    assert_strings(&spec.env, "MODE=fast|X=1|PATH=/bin|");
    assert_strings(&spec.labels, "tier=back|");
    assert_string_equal(spec.workdir, "/tmp");
    assert_int_equal(spec.uid, 7);
    assert_int_equal(spec.gid, 8);
}

static void test_fill__users_by_name_and_number(void **state)
{
    struct machine *machine = *state;
    static const struct {
        const char *user;
        uint32_t uid, gid;
        int status;
    } rows[] = {
        {"web:logs", 1033, 50, 0},     {"web:12", 1033, 12, 0},
        {"1033", 1033, 1034, 0},       {"44", 44, 0, 0},
        {"44:45", 44, 45, 0},          {"44:logs", 44, 50, 0},
        {"nobody", 0, 0, ERR_INVALID}, {"web:wheel", 0, 0, ERR_INVALID},
        {"huge", 0, 0, ERR_INVALID},   {"70000", 0, 0, ERR_INVALID},
        {"-1", 0, 0, ERR_INVALID},     {"bad", 0, 0, ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        OWNED(owned_free) char *config = file_path("{" CONFIG ",\"User\":\"%s\"}", rows[i].user);
        import_app(machine, config);
        OWNED(runtime_spec_release) struct runtime_spec spec = {0};
        struct err err = {0};
        int status = fill(machine, "{\"name\":\"a\",\"image\":\"app:1\"}", &spec, &err);
        if (status != rows[i].status || spec.uid != rows[i].uid || spec.gid != rows[i].gid)
            fail_msg("'%s' gives %d, %u:%u: %s", rows[i].user, status, spec.uid, spec.gid, err.text);
    }
}

static void test_fill__without_an_image_or_a_command(void **state)
{
    struct machine *machine = *state;
    struct err err = {0};
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    assert_int_equal(fill(machine, "{\"name\":\"a\",\"image\":\"none:1\"}", &spec, &err), ERR_NOTFOUND);
    import_app(machine, "{}");
    OWNED(runtime_spec_release) struct runtime_spec other = {0};
    assert_int_equal(fill(machine, "{\"name\":\"a\",\"image\":\"app:1\"}", &other, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "command"));
}

static void test_fill__unused_layers_go_used_ones_stay(void **state)
{
    struct machine *machine = *state;
    struct err err = {0};
    import_app(machine, "{" CONFIG ",\"User\":\"web\"}");
    OWNED(runtime_spec_release) struct runtime_spec spec = {0};
    ASSERT_OK(fill(machine, "{\"name\":\"a\",\"image\":\"app:1\"}", &spec, &err), err); /* unpacks, for its passwd */
    OWNED(owned_image) struct image *image = NULL;
    ASSERT_OK(image_get(machine->a.store, "app:1", &image, &err), err);
    char hex[ID_HEX_SIZE];
    OWNED(owned_free)
    char *layer = file_path("%s/layers/%s", machine->a.dir, id_hex(&image->layers[0].diff_id, hex));
    ASSERT_OK(runtime_maintain(machine->a.runtime, &err), err);
    assert_true(file_exists(layer));
    ASSERT_OK(image_remove(machine->a.store, "app:1", &err), err);
    ASSERT_OK(runtime_maintain(machine->a.runtime, &err), err);
    assert_false(file_exists(layer));
}

/* Needs no container: the engine need not be there. */
static int node_setup(void **state)
{
    if (machine_setup(state) < 0)
        return -1;
    struct machine *machine = *state;
    strcpy(machine->criu, "criu");
    peer_open(machine, &machine->a, "a");
    return 0;
}

#define NODE_TEST(test) cmocka_unit_test_setup_teardown(test, node_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODE_TEST(test_fill__the_image_completes_what_is_open), NODE_TEST(test_fill__the_user_decides_what_he_says),
        NODE_TEST(test_fill__users_by_name_and_number),         NODE_TEST(test_fill__without_an_image_or_a_command),
        NODE_TEST(test_fill__unused_layers_go_used_ones_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
