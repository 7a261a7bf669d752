/* Images from everywhere and back: import, names, unpacked layers, export, adoption. */
#include "tests/test.h"

#include <errno.h>
#include <sys/file.h>
#include <sys/xattr.h>

#include "node/base/limits.h"
#include "tests/unit/image/layout_builder.h"

struct world {
    struct scratch scratch;
    struct store *store;
    char *scratch_dir;
    char *layout;
    char *layers;
};

static struct store *open_store(const char *dir)
{
    struct err err = {0};
    struct store *store;
    struct store_options options = {.dir = dir, .clock = clock_system()};
    if (store_open(&options, &store, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_int_equal(crypto_init(NULL), 0);
    scratch_make(&world->scratch);
    world->scratch_dir = file_path("%s/scratch", world->scratch.dir);
    world->layout = file_path("%s/layout", world->scratch.dir);
    world->layers = file_path("%s/layers", world->scratch.dir);
    assert_int_equal(mkdir(world->scratch_dir, 0700), 0);
    assert_int_equal(mkdir(world->layers, 0700), 0);
    OWNED(owned_free) char *dir = file_path("%s/store", world->scratch.dir);
    world->store = open_store(dir);
    *state = world;
    return 0;
}

static unsigned names_in(const char *dir)
{
    unsigned names = 0;
    DIR *listing = opendir(dir);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        names += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
    closedir(listing);
    return names;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    assert_int_equal(names_in(world->scratch_dir), 0); /* imports clean up behind them */
    assert_true(scratch_canary_is_well(&world->scratch));
    store_close(world->store);
    scratch_remove(&world->scratch);
    free(world->scratch_dir);
    free(world->layout);
    free(world->layers);
    free(world);
    return 0;
}

static int import_path(struct world *world, const char *path, enum image_format format, const char *name,
                       struct image_list *list, struct err *err)
{
    struct image_import_options options = {.format = format, .name = name, .scratch_dir = world->scratch_dir};
    return image_import(world->store, path, &options, list, err);
}

static struct image *import_layout(struct world *world)
{
    struct err err = {0};
    struct image *image;
    make_layout(world->layout, &(struct layout){0});
    if (import_path(world, world->layout, IMAGE_FORMAT_ANY, NULL, NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(image_get(world->store, "repo/app:1", &image, &err), 0);
    return image;
}

static void tar_up(const char *dir, const char *file)
{
    OWNED(owned_free) char *command = file_path("tar -C %s -cf %s .", dir, file);
    assert_int_equal(system(command), 0);
}

/* ---- import ---- */

static void assert_is_the_image(const struct image *image)
{
    assert_string_equal(image->name, "repo/app:1");
    assert_string_equal(image->architecture, MACHINE_TEXT);
    assert_string_equal(image->created, "2026-01-02T03:04:05Z");
    assert_int_equal(image->layer_count, 2);
    assert_int_equal(image->env_count, 2);
    assert_string_equal(image->env[1], "A=b=c");
    assert_null(image->env[2]);
    assert_int_equal(image->cmd_count, 2);
    assert_string_equal(image->cmd[0], "-c");
    assert_int_equal(image->entrypoint_count, 1);
    assert_string_equal(image->entrypoint[0], "/bin/sh");
    assert_string_equal(image->user, "1000:100");
    assert_string_equal(image->workdir, "/etc");
    assert_int_equal(image->label_count, 2);
    assert_string_equal(image->labels[0].key, "a");
    assert_string_equal(image->labels[0].value, "2");
}

static void test_image__import_layout(void **state)
{
    struct world *world = *state;
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(image_list_release) struct image_list list = {0};
    struct store_object_info info;
    struct err err = {0};
    assert_is_the_image(image);
    OWNED(buf_release) struct buf lower = BUF(1u << 20), upper = BUF(1u << 20);
    make_layers(&lower, &upper);
    struct id lower_id;
    crypto_sha256(lower.data, lower.len, &lower_id);
    assert_true(id_equal(&image->layers[0].diff_id, &lower_id));
    assert_int_equal(image->layers[0].size_bytes, lower.len);
    assert_int_equal(store_object_stat(world->store, &lower_id, &info, &err), 1);
    assert_int_equal(info.kind, STORE_LAYER);
    assert_int_equal(store_object_stat(world->store, &image->manifest, &info, &err), 1);
    assert_int_equal(info.kind, STORE_BLOB);
    assert_int_equal(store_pinned(world->store, &lower_id, &err), 1);
    assert_int_equal(image_list(world->store, &list, &err), 0);
    assert_int_equal(list.count, 1);
    assert_is_the_image(list.images[0]);
}

/* One image, four ways, one digest. */
static void test_image__formats_agree(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    struct id manifest = image->manifest;

    OWNED(owned_free) char *tar = file_path("%s/layout.tar", world->scratch.dir);
    tar_up(world->layout, tar);
    OWNED(image_list_release) struct image_list from_tar = {0}, from_gzip = {0}, from_docker = {0}, from_zstd = {0};
    assert_int_equal(import_path(world, tar, IMAGE_FORMAT_ANY, NULL, &from_tar, &err), 0);
    assert_true(id_equal(&from_tar.images[0]->manifest, &manifest));

    OWNED(owned_free) char *command = file_path("gzip %s", tar);
    OWNED(owned_free) char *gzip = file_path("%s.gz", tar);
    assert_int_equal(system(command), 0);
    assert_int_equal(import_path(world, gzip, IMAGE_FORMAT_OCI, NULL, &from_gzip, &err), 0);
    assert_true(id_equal(&from_gzip.images[0]->manifest, &manifest));

    /* docker-archive, of the old kind: directories, a link from one layer to another, the tag at the end */
    OWNED(buf_release) struct buf lower = BUF(1u << 20), upper = BUF(1u << 20), config = BUF(1u << 20);
    OWNED(buf_release) struct buf docker = BUF(4u << 20), text = BUF(1u << 20);
    make_layers(&lower, &upper);
    make_config(&config, MACHINE_TEXT, &lower, &upper);
    char id[2][70], name[100];
    memset(id, 0, sizeof id);
    memset(id[0], 'a', 64);
    memset(id[1], 'b', 64);
    snprintf(name, sizeof name, "%s/", id[0]);
    tar_dir(&docker, name, 0755);
    snprintf(name, sizeof name, "%s/VERSION", id[0]);
    tar_file(&docker, name, "1.0");
    snprintf(name, sizeof name, "%s/layer.tar", id[0]);
    tar_bytes(&docker, name, lower.data, lower.len);
    snprintf(name, sizeof name, "%s.tar", id[1]);
    tar_bytes(&docker, name, upper.data, upper.len);
    snprintf(name, sizeof name, "%s/layer.tar", id[1]);
    char target[100];
    snprintf(target, sizeof target, "../%s.tar", id[1]);
    tar_symlink(&docker, name, target);
    struct blob conf = blob_of(&config);
    snprintf(name, sizeof name, "%s.json", conf.digest + 7);
    tar_bytes(&docker, name, config.data, config.len);
    text_of(&text,
            "[{\"Config\":\"%s\",\"RepoTags\":[\"repo/app:1\",\"repo/app:stable\"],\"Layers\":[\"%s/layer.tar\","
            "\"%s/layer.tar\"]}]",
            name, id[0], id[1]);
    tar_bytes(&docker, "manifest.json", text.data, text.len);
    tar_file(&docker, "repositories", "{}");
    tar_end(&docker);
    OWNED(owned_free) char *archive = file_path("%s/docker.tar", world->scratch.dir);
    write_text(archive, docker.data, docker.len);
    int status = import_path(world, archive, IMAGE_FORMAT_ANY, NULL, &from_docker, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
    assert_int_equal(from_docker.count, 2);
    assert_true(id_equal(&from_docker.images[0]->manifest, &manifest));
    assert_string_equal(from_docker.images[1]->name, "repo/app:stable");
    assert_false(id_equal(&from_docker.images[1]->manifest, &manifest));

    /* zstd layers and a nested index with other machines in it */
    OWNED(owned_free) char *nested = file_path("%s/nested", world->scratch.dir);
    make_layout_dirs(nested);
    struct layout other = {.lower_filter = "zstd -q -c", .upper_filter = "gzip -nc", .layer_type = OCI_LAYER "+zstd"};
    struct blob theirs = put_manifest(nested, &other, "mips64le"), ours = put_manifest(nested, &other, MACHINE_TEXT);
    text_of(&text,
            "{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\",\"manifests\":[{\"mediaType\":\"" OCI_MANIFEST
            "\",\"digest\":\"%s\",\"size\":%zu,\"platform\":{\"os\":\"linux\",\"architecture\":\"mips64le\"}},"
            "{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,\"platform\":{\"os\":\"unknown\","
            "\"architecture\":\"unknown\"}},{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
            "\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}}]}",
            theirs.digest, theirs.size, theirs.digest, theirs.size, ours.digest, ours.size, MACHINE_TEXT);
    struct blob index = put_blob(nested, &text);
    text_of(&text,
            "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_INDEX
            "\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"io.containerd.image.name\":\"repo/app:1\","
            "\"org.opencontainers.image.ref.name\":\"1\"}}]}",
            index.digest, index.size);
    put_index(nested, buf_str(&text));
    status = import_path(world, nested, IMAGE_FORMAT_ANY, NULL, &from_zstd, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
    assert_true(id_equal(&from_zstd.images[0]->manifest, &manifest));
}

struct patience {
    unsigned asked, most;
};

static bool has_run_out(void *ctx)
{
    struct patience *patience = ctx;
    return patience->asked++ >= patience->most;
}

/* Cancelled at every place where it can be, until it is not: nothing has a name before the end. */
static void test_image__import_can_be_cancelled(void **state)
{
    struct world *world = *state;
    struct patience patience = {0};
    struct err err = {0};
    int status = ERR_CANCELLED;
    make_layout(world->layout, &(struct layout){0});
    while (status == ERR_CANCELLED) {
        OWNED(image_list_release) struct image_list list = {0};
        struct image_import_options options = {
            .scratch_dir = world->scratch_dir, .is_cancelled = has_run_out, .ctx = &patience};
        patience.asked = 0;
        status = image_import(world->store, world->layout, &options, NULL, &err);
        assert_int_equal(image_list(world->store, &list, &err), 0);
        assert_int_equal(list.count, status == 0 ? 1 : 0);
        patience.most++;
    }
    assert_int_equal(status, 0);
    assert_true(patience.most > 3); /* more than once for each layer */
}

/* An archive too, while it is looked at and unpacked: faults 70, the time that a stranger's bytes take. */
static void test_image__archive_can_be_cancelled(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_free) char *path = file_path("%s/image.tar", world->scratch.dir);
    make_layout(world->layout, &(struct layout){0});
    tar_up(world->layout, path);
    for (unsigned most = 0; most < 2; most++) { /* the look, the unpacking */
        struct patience patience = {.most = most};
        struct image_import_options options = {
            .scratch_dir = world->scratch_dir, .is_cancelled = has_run_out, .ctx = &patience};
        assert_int_equal(image_import(world->store, path, &options, NULL, &err), ERR_CANCELLED);
        assert_int_equal(patience.asked, most + 1);
        assert_int_equal(names_in(world->scratch_dir), 0);
    }
}

static void test_image__rootfs(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(image_list_release) struct image_list list = {0}, again = {0};
    OWNED(buf_release) struct buf tar = BUF(1u << 20), gzip = BUF(1u << 20);
    tar_dir(&tar, "bin/", 0755);
    tar_file(&tar, "bin/sh", "busybox");
    tar_file(&tar, "manifest.json", "just a file");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/rootfs.tar", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ANY, NULL, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "give it one"));
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ANY, "base", &list, &err), 0);
    assert_string_equal(list.images[0]->name, "base:latest");
    assert_int_equal(list.images[0]->layer_count, 1);
    assert_int_equal(list.images[0]->cmd_count, 0);
    run_filter("gzip -nc", &tar, &gzip);
    write_text(path, gzip.data, gzip.len);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "base:latest", &again, &err), 0);
    assert_true(id_equal(&list.images[0]->manifest, &again.images[0]->manifest));
    write_text(path, tar.data, tar.len - 1024);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "cut", NULL, &err), ERR_CORRUPT);
    assert_int_equal(import_path(world, "/dev/null", IMAGE_FORMAT_ANY, "x", NULL, &err), ERR_INVALID);
    assert_int_equal(import_path(world, "/nonexistent", IMAGE_FORMAT_ANY, "x", NULL, &err), ERR_NOTFOUND);
    assert_int_equal(import_path(world, world->layers, IMAGE_FORMAT_ANY, "x", NULL, &err), ERR_UNSUPPORTED);
}

/* From a descriptor whose offset is at its end, as after an upload. */
static void test_image__import_fd(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = BUF(1u << 20);
    tar_file(&tar, "sh", "busybox");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/upload", world->scratch.dir);
    OWNED(owned_fd) int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(file_write_all(fd, tar.data, tar.len, path, &err), 0);
    struct image_import_options options = {.name = "up", .scratch_dir = world->scratch_dir};
    assert_int_equal(image_import_fd(world->store, fd, &options, NULL, &err), 0);
    OWNED(owned_image) struct image *image = NULL;
    assert_int_equal(image_get(world->store, "up", &image, &err), 0);
}

/* ---- what is refused ---- */

static void assert_layout_fails(struct world *world, const struct layout *layout, int code, const char *words)
{
    struct err err = {0};
    OWNED(image_list_release) struct image_list list = {0};
    assert_int_equal(file_remove_tree(world->layout, NULL), 0);
    make_layout(world->layout, layout);
    int status = import_path(world, world->layout, IMAGE_FORMAT_OCI, NULL, NULL, &err);
    if (status != code || !strstr(err.text, words))
        print_message("status %d: %s\n", status, err.text);
    assert_int_equal(status, code);
    assert_non_null(strstr(err.text, words));
    assert_int_equal(image_list(world->store, &list, &err), 0);
    assert_int_equal(list.count, 0);
}

/* faults 38 */
static void test_image__manifests_that_do_not_add_up(void **state)
{
    struct world *world = *state;
    struct store_usage usage;
    assert_layout_fails(world, &(struct layout){.layer_size_off = 1}, ERR_CORRUPT, "where the manifest says");
    assert_layout_fails(world, &(struct layout){.layer_size_off = -1}, ERR_CORRUPT, "where the manifest says");
    assert_layout_fails(world, &(struct layout){.corrupt_layer = true}, ERR_CORRUPT, "layer");
    assert_layout_fails(world, &(struct layout){.swap_layers = true}, ERR_CORRUPT, "diff_id");
    assert_layout_fails(world, &(struct layout){.layer_type = "text/plain"}, ERR_UNSUPPORTED, "media type");
    assert_layout_fails(world, &(struct layout){.architecture = "mips64le"}, ERR_UNSUPPORTED, "linux/mips64le");
    assert_int_equal(store_usage(world->store, &usage, NULL), 0);
    assert_int_equal(usage.objects, 0); /* nothing of a layer that does not verify is kept */
}

static void assert_manifest_fails(struct world *world, const char *text, int code, const char *words)
{
    assert_layout_fails(world, &(struct layout){.manifest_text = text}, code, words);
}

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define CONFIG_A "{\"mediaType\":\"" OCI_CONFIG "\",\"digest\":\"sha256:" A64 "\",\"size\":10}"
#define LAYER(digest, size) "{\"mediaType\":\"" OCI_LAYER "\",\"digest\":\"" digest "\",\"size\":" size "}"
#define MANIFEST(layers) "{\"schemaVersion\":2,\"config\":" CONFIG_A ",\"layers\":[" layers "]}"

/* faults 38, 40 */
static void test_image__hostile_manifests(void **state)
{
    struct world *world = *state;
    assert_manifest_fails(world, MANIFEST(""), ERR_LIMIT, "1 to 256 layers");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "0")), ERR_INVALID, "'size'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "-5")), ERR_INVALID, "'size'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "1.5")), ERR_INVALID, "'size'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "9223372036854775807")), ERR_INVALID, "'size'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "\"7\"")), ERR_INVALID, "'size'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1")), ERR_INVALID,
                          "'digest'");
    assert_manifest_fails(
        world, MANIFEST(LAYER("sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "1")),
        ERR_INVALID, "'digest'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:aaaa", "1")), ERR_INVALID, "'digest'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:../../x", "1")), ERR_INVALID, "'digest'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:../../../../../../canary/bird", "1")), ERR_INVALID, "'digest'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:\\u0000" A64, "1")), ERR_INVALID, "malformed");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64 "\\n", "1")), ERR_INVALID, "'digest'");
    assert_manifest_fails(world, MANIFEST(LAYER("sha256:" A64, "1")), ERR_INVALID, "has no 'blobs/sha256/" A64);
    assert_manifest_fails(world, "[]", ERR_INVALID, "schemaVersion");
    assert_manifest_fails(world, "{\"schemaVersion\":1}", ERR_INVALID, "schemaVersion");
    assert_manifest_fails(world, "{\"schemaVersion\":2,\"schemaVersion\":2}", ERR_INVALID, "malformed");
    assert_manifest_fails(world, "{\"schemaVersion\":2", ERR_INVALID, "malformed");
}

/* faults 38: more than 4 MiB; 257 layers; nesting; a million values */
static void test_image__oversized_manifests(void **state)
{
    struct world *world = *state;
    enum { SIZE = 5 << 20 };
    OWNED(owned_free) char *text = malloc(SIZE + 1);
    memset(text, ' ', SIZE);
    text[SIZE] = '\0';
    assert_manifest_fails(world, text, ERR_INVALID, "'size'");

    OWNED(buf_release) struct buf many = BUF(1u << 20);
    buf_add_str(&many, "{\"schemaVersion\":2,\"config\":" CONFIG_A ",\"layers\":[");
    for (int i = 0; i < 257; i++)
        buf_addf(&many, "%s%s", i ? "," : "", LAYER("sha256:" A64, "1"));
    buf_add_str(&many, "]}");
    assert_manifest_fails(world, buf_str(&many), ERR_LIMIT, "1 to 256 layers");

    memset(text, '[', 100);
    text[100] = '\0';
    assert_manifest_fails(world, text, ERR_LIMIT, "nests more than 32");

    strcpy(text, "{\"x\":[");
    for (int i = 0; i < 300000; i++)
        memcpy(text + 6 + 2 * i, "0,", 2);
    strcpy(text + 600006, "0]}");
    assert_manifest_fails(world, text, ERR_LIMIT, "more than 262144 values");
}

/* faults 39 */
static void test_image__two_faced_documents(void **state)
{
    struct world *world = *state;
    assert_layout_fails(world, &(struct layout){.manifest_extra = ",\"manifests\":[]"}, ERR_INVALID, "not clearly");
    assert_layout_fails(world, &(struct layout){.manifest_extra = ",\"mediaType\":\"" OCI_INDEX "\""}, ERR_INVALID,
                        "mediaType is not that");
    assert_manifest_fails(world, "{\"schemaVersion\":2,\"manifests\":[]}", ERR_INVALID, "not clearly");
    const char *both = "{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}";
    assert_layout_fails(world, &(struct layout){.index_text = both}, ERR_INVALID, "not clearly");
    const char *liar = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\",\"manifests\":[]}";
    assert_layout_fails(world, &(struct layout){.index_text = liar}, ERR_INVALID, "mediaType is not that");
    const char *empty = "{\"schemaVersion\":2,\"manifests\":[]}";
    assert_layout_fails(world, &(struct layout){.index_text = empty}, ERR_LIMIT, "1 to 1024 entries");
    /* a manifest that is announced as an index, and one of a type of its own */
    struct layout plain = {0};
    assert_int_equal(file_remove_tree(world->layout, NULL), 0);
    make_layout(world->layout, &plain);
    struct blob manifest = put_manifest(world->layout, &plain, MACHINE_TEXT);
    const char *types[] = {OCI_INDEX, "application/json"};
    const int codes[] = {ERR_INVALID, ERR_UNSUPPORTED};
    for (size_t i = 0; i < 2; i++) {
        OWNED(buf_release) struct buf index = BUF(10000);
        struct err err = {0};
        text_of(&index, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}]}",
                types[i], manifest.digest, manifest.size);
        put_index(world->layout, buf_str(&index));
        assert_int_equal(import_path(world, world->layout, IMAGE_FORMAT_OCI, "x", NULL, &err), codes[i]);
    }
}

/* faults 39: an index that holds itself cannot be made without breaking SHA-256, but a deep one can */
static void test_image__deep_index(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    make_layout(world->layout, &(struct layout){0});
    struct blob inner = put_manifest(world->layout, &(struct layout){0}, MACHINE_TEXT);
    OWNED(buf_release) struct buf index = BUF(10000);
    for (int i = 0; i < 8; i++) {
        text_of(&index, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}]}",
                i ? OCI_INDEX : OCI_MANIFEST, inner.digest, inner.size);
        inner = put_blob(world->layout, &index);
    }
    put_index(world->layout, buf_str(&index));
    assert_int_equal(import_path(world, world->layout, IMAGE_FORMAT_OCI, "x", NULL, &err), ERR_LIMIT);
    assert_non_null(strstr(err.text, "indexes in each other"));
}

/* faults 40: paths in a docker-archive are the archive's own, and end inside it */
static void test_image__docker_paths_stay_inside(void **state)
{
    struct world *world = *state;
    const struct {
        const char *path;
        int code;
    } configs[] = {
        {"../../canary/bird", ERR_INVALID}, {"/etc/hostname", ERR_INVALID},
        {"blobs/link", ERR_INVALID},        {"blobs", ERR_INVALID},
        {"nowhere", ERR_INVALID},           {"", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct err err = {0};
        OWNED(buf_release) struct buf docker = BUF(1u << 20), text = BUF(10000);
        tar_symlink(&docker, "blobs/link", "../../../canary/bird");
        text_of(&text, "[{\"Config\":\"%s\",\"RepoTags\":[\"x:1\"],\"Layers\":[\"../../canary/bird\"]}]",
                configs[i].path);
        tar_bytes(&docker, "manifest.json", text.data, text.len);
        tar_end(&docker);
        OWNED(owned_free) char *path = file_path("%s/docker.tar", world->scratch.dir);
        write_text(path, docker.data, docker.len);
        int status = import_path(world, path, IMAGE_FORMAT_ANY, NULL, NULL, &err);
        if (status != configs[i].code)
            print_message("'%s': %d %s\n", configs[i].path, status, err.text);
        assert_int_equal(status, configs[i].code);
    }
}

/* A hostile archive is refused before anything in it is looked at. */
static void test_image__archive_that_leads_out(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = BUF(1u << 20);
    tar_file(&tar, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    tar_symlink(&tar, "blobs", "../../canary");
    tar_file(&tar, "blobs/x", "bad");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/evil.tar", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ANY, NULL, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "refused"));
}

/* faults 47 */
static void test_image__hostile_names(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    char long_name[5000];
    memset(long_name, 'n', 4096);
    long_name[4096] = '\0';
    char nearly[NAME_MAX_BYTES + 1];
    memset(nearly, 'n', NAME_MAX_BYTES - 3);
    nearly[NAME_MAX_BYTES - 3] = '\0';
    const char *with_digest = "a@sha256:" A64;
    const char *names[] = {"",    "-oProxyCommand=x", "..",  "a/../b", "../x", "/abs", "new\nline", "\xff\xfe",
                           "a b", with_digest,        "a;b", "a:",     "a/",   "a/:1", "a:1:2",     long_name,
                           nearly};
    make_layout(world->layout, &(struct layout){0});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct image *image;
        assert_int_equal(import_path(world, world->layout, IMAGE_FORMAT_OCI, names[i], NULL, &err), ERR_INVALID);
        assert_int_equal(image_get(world->store, names[i], &image, &err), ERR_INVALID);
        assert_int_equal(image_remove(world->store, names[i], &err), ERR_INVALID);
    }
    assert_layout_fails(world, &(struct layout){.index_name = "../../../x"}, ERR_INVALID, "image name");
    assert_layout_fails(world, &(struct layout){.index_name = "-v"}, ERR_INVALID, "image name");
    assert_layout_fails(world, &(struct layout){.index_name = "none"}, ERR_INVALID, "give it one");
}

/* ---- names ---- */

static void test_image__get(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    char hex[ID_HEX_SIZE], digest[DIGEST_TEXT_SIZE], prefix[16];
    id_hex(&image->manifest, hex);
    snprintf(prefix, sizeof prefix, "%.8s", hex);
    const char *good[] = {"repo/app:1", "docker.io/repo/app:1", digest_text(&image->manifest, digest), prefix};
    const char *unknown = "sha256:" A64;
    const char *bad[] = {"repo/app", "repo/app:2", unknown, "aaaaaaaaaaaa"};
    for (size_t i = 0; i < 4; i++) {
        OWNED(owned_image) struct image *found = NULL;
        assert_int_equal(image_get(world->store, good[i], &found, &err), 0);
        assert_true(id_equal(&found->manifest, &image->manifest));
    }
    for (size_t i = 0; i < 4; i++) {
        struct image *found;
        assert_int_equal(image_get(world->store, bad[i], &found, &err), ERR_NOTFOUND);
    }
}

/* A name given again means the new image; the old one's pins go. */
static void test_image__replace_and_remove(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(buf_release) struct buf tar = BUF(1u << 20);
    tar_file(&tar, "sh", "busybox");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/rootfs.tar", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "repo/app:1", NULL, &err), 0);
    assert_int_equal(store_pinned(world->store, &image->layers[0].diff_id, &err), 0);
    OWNED(owned_image) struct image *now = NULL;
    assert_int_equal(image_get(world->store, "repo/app:1", &now, &err), 0);
    assert_int_equal(now->layer_count, 1);
    assert_int_equal(store_pinned(world->store, &now->layers[0].diff_id, &err), 1);
    /* two names for one content do not take each other's pins away */
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "twin", NULL, &err), 0);
    assert_int_equal(image_remove(world->store, "repo/app:1", &err), 0);
    assert_int_equal(store_pinned(world->store, &now->layers[0].diff_id, &err), 1);
    assert_int_equal(image_remove(world->store, "twin", &err), 0);
    assert_int_equal(store_pinned(world->store, &now->layers[0].diff_id, &err), 0);
    assert_int_equal(image_remove(world->store, "twin", &err), ERR_NOTFOUND);
    OWNED(image_list_release) struct image_list list = {0};
    assert_int_equal(image_list(world->store, &list, &err), 0);
    assert_int_equal(list.count, 0);
}

/* ---- export, adoption ---- */

static void test_image__export_and_again(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(buf_release) struct buf tar = BUF(4u << 20), twin = BUF(4u << 20);
    assert_int_equal(image_export(world->store, image, collect, &tar, &err), 0);
    assert_int_equal(image_export(world->store, image, collect, &twin, &err), 0);
    assert_true(tar.len == twin.len && memcmp(tar.data, twin.data, tar.len) == 0);
    OWNED(owned_free) char *path = file_path("%s/export.tar", world->scratch.dir);
    OWNED(owned_free) char *dir = file_path("%s/second-store", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    struct store *second = open_store(dir);
    struct image_import_options options = {.scratch_dir = world->scratch_dir};
    OWNED(image_list_release) struct image_list list = {0};
    int status = image_import(second, path, &options, &list, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
    assert_true(id_equal(&list.images[0]->manifest, &image->manifest));
    assert_is_the_image(list.images[0]);
    store_close(second);
}

/* The bytes of one object in another store, as if they had been fetched. */
static void send_object(struct store *from, struct store *to, const struct id *digest)
{
    struct err err = {0};
    struct store_object_info info;
    assert_int_equal(store_object_stat(from, digest, &info, &err), 1);
    OWNED(owned_free) uint8_t *data = malloc((size_t)info.size_bytes);
    size_t len;
    assert_int_equal(store_object_read(from, digest, 0, data, (size_t)info.size_bytes, &len, &err), 0);
    struct store_ingest *ingest;
    assert_int_equal(store_ingest_new(to, info.kind, info.chunking, &ingest, &err), 0);
    assert_int_equal(store_ingest_write(ingest, data, len, &err), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, &err), 0);
    store_ingest_free(ingest);
}

static void test_image__adopt(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(owned_free) char *dir = file_path("%s/second-store", world->scratch.dir);
    struct store *second = open_store(dir);
    OWNED(owned_free) struct id *ids = NULL;
    size_t count;
    assert_int_equal(image_objects(image, &ids, &count, &err), 0);
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(image_adopt(second, &image->manifest, NULL, &err), ERR_NOTFOUND);
        send_object(world->store, second, &ids[i]);
    }
    OWNED(owned_image) struct image *adopted = NULL, *found = NULL;
    assert_int_equal(image_adopt(second, &image->manifest, &adopted, &err), 0);
    assert_is_the_image(adopted);
    assert_int_equal(image_get(second, "repo/app:1", &found, &err), 0);
    store_close(second);
}

static struct id put_object(struct store *store, const void *data, size_t len)
{
    struct store_ingest *ingest;
    struct store_object_info info;
    assert_int_equal(store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, NULL), 0);
    assert_int_equal(store_ingest_write(ingest, data, len, NULL), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, NULL), 0);
    store_ingest_free(ingest);
    return info.digest;
}

static char *manifest_text(struct world *world, const struct image *image)
{
    struct store_object_info info;
    size_t len;
    assert_int_equal(store_object_stat(world->store, &image->manifest, &info, NULL), 1);
    char *text = calloc(1, (size_t)info.size_bytes + 1);
    assert_int_equal(store_object_read(world->store, &image->manifest, 0, text, (size_t)info.size_bytes, &len, NULL),
                     0);
    return text;
}

/* A peer may not slip another entry point, user or name's meaning under an image. */
static void test_image__adopt_refuses_forgeries(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    const struct {
        const char *from, *to;
        int code;
    } forgeries[] = {
        {"[\"/bin/sh\"]", "[\"/bin/ls\"]", ERR_INVALID},        {"1000:100", "00000000", ERR_INVALID},
        {"\"cmig image\"", "\"cmig Image\"", ERR_INVALID},      {"A=b=c", "LD_PR=", ERR_INVALID},
        {"\"version\":1", "\"version\":2", ERR_INVALID},        {"sha256:", "sha512:", ERR_INVALID},
        {"\"os\":\"linux\"", "\"os\":\"linux\" ", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        OWNED(owned_free) char *text = manifest_text(world, image);
        char *at = strstr(text, forgeries[i].from);
        assert_non_null(at);
        OWNED(owned_free)
        char *forged = file_path("%.*s%s%s", (int)(at - text), text, forgeries[i].to, at + strlen(forgeries[i].from));
        struct id digest = put_object(world->store, forged, strlen(forged));
        int status = image_adopt(world->store, &digest, NULL, &err);
        if (status != forgeries[i].code)
            print_message("%zu: %d %s\n", i, status, err.text);
        assert_int_equal(status, forgeries[i].code);
    }
    /* the same image under another name is fine, and does not touch the first */
    OWNED(owned_free) char *text = manifest_text(world, image);
    strstr(text, "repo/app:1")[9] = '2';
    struct id digest = put_object(world->store, text, strlen(text));
    OWNED(owned_image) struct image *other = NULL;
    assert_int_equal(image_adopt(world->store, &digest, &other, &err), 0);
    assert_string_equal(other->name, "repo/app:2");
}

/* What a name means here, a peer does not change. */
static void test_image__adopt_keeps_local_names(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(buf_release) struct buf tar = BUF(1u << 20);
    tar_file(&tar, "sh", "mine");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/rootfs.tar", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "repo/app:1", NULL, &err), 0);
    OWNED(owned_image) struct image *named = NULL, *by_digest = NULL;
    assert_int_equal(image_adopt(world->store, &image->manifest, NULL, &err), 0);
    assert_int_equal(image_get(world->store, "repo/app:1", &named, &err), 0);
    assert_int_equal(named->layer_count, 1);
    char digest[DIGEST_TEXT_SIZE];
    assert_int_equal(image_get(world->store, digest_text(&image->manifest, digest), &by_digest, &err), 0);
    assert_int_equal(by_digest->layer_count, 2);
}

/* ---- layers ---- */

static char *layer_path(const struct world *world, const struct image *image, size_t layer, const char *name)
{
    char hex[ID_HEX_SIZE];
    return file_path("%s/%s/%s", world->layers, id_hex(&image->layers[layer].diff_id, hex), name);
}

static void test_image__unpack_layers(void **state)
{
    if (geteuid() != 0) {
        print_message("SKIPPED test_image__unpack_layers: needs root\n");
        skip();
    }
    struct world *world = *state;
    struct err err = {0};
    struct stat st, again;
    OWNED(owned_image) struct image *image = import_layout(world);
    assert_int_equal(image_unpack_layers(world->store, image, world->layers, &err), 0);
    assert_int_equal(names_in(world->layers), 2);
    OWNED(owned_free) char *old = layer_path(world, image, 1, "etc/old");
    OWNED(owned_free) char *var = layer_path(world, image, 1, "var");
    OWNED(owned_free) char *shell = layer_path(world, image, 0, "bin/sh");
    OWNED(owned_free) char *root = layer_path(world, image, 0, "");
    assert_int_equal(lstat(old, &st), 0);
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == 0);
    assert_int_equal(getxattr(var, "trusted.overlay.opaque", NULL, 0), 1);
    assert_int_equal(lstat(root, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(lstat(shell, &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(image_unpack_layers(world->store, image, world->layers, &err), 0);
    assert_int_equal(lstat(shell, &again), 0);
    assert_int_equal(st.st_ino, again.st_ino);
}

/* A layer that cannot be unpacked leaves nothing that looks like one. */
static void test_image__hostile_layer(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = BUF(1u << 20);
    tar_symlink(&tar, "d", "../../canary");
    tar_file(&tar, "d/x", "bad");
    tar_end(&tar);
    OWNED(owned_free) char *path = file_path("%s/rootfs.tar", world->scratch.dir);
    write_text(path, tar.data, tar.len);
    OWNED(image_list_release) struct image_list list = {0};
    assert_int_equal(import_path(world, path, IMAGE_FORMAT_ROOTFS, "evil", &list, &err), 0);
    assert_int_equal(image_unpack_layers(world->store, list.images[0], world->layers, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "refused"));
    assert_int_equal(names_in(world->layers), 0);
}

static void test_image__layers_gc(void **state)
{
    if (geteuid() != 0) {
        print_message("SKIPPED test_image__layers_gc: needs root\n");
        skip();
    }
    struct world *world = *state;
    struct err err = {0};
    size_t removed = 9;
    OWNED(owned_image) struct image *image = import_layout(world);
    assert_int_equal(image_unpack_layers(world->store, image, world->layers, &err), 0);
    char hex[ID_HEX_SIZE];
    OWNED(owned_free)
    char *scrap = file_path("%s/.%s.0123456789abcdef", world->layers, id_hex(&image->layers[0].diff_id, hex));
    OWNED(owned_free) char *inside = file_path("%s/file", scrap);
    OWNED(owned_free) char *foreign = file_path("%s/README", world->layers);
    assert_int_equal(mkdir(scrap, 0700), 0);
    write_text(inside, "x", 1);
    write_text(foreign, "x", 1);
    struct id in_use[2] = {image->layers[1].diff_id, image->layers[0].diff_id};
    {
        OWNED(owned_fd) int busy = open(world->layers, O_RDONLY | O_DIRECTORY);
        assert_int_equal(flock(busy, LOCK_SH), 0);
        assert_int_equal(image_layers_gc(world->layers, in_use, 2, &removed, &err), ERR_BUSY);
    }
    assert_int_equal(image_layers_gc(world->layers, in_use, 2, &removed, &err), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(names_in(world->layers), 3);
    assert_int_equal(image_layers_gc(world->layers, in_use, 1, &removed, &err), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(image_layers_gc(world->layers, NULL, 0, &removed, &err), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(names_in(world->layers), 1); /* what is not ours stays */
}

/* ---- the manifest, by itself ---- */

static void test_image__parse_is_strict(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world), *parsed = NULL;
    OWNED(owned_free) char *text = manifest_text(world, image);
    size_t len = strlen(text);
    assert_int_equal(image_parse(text, len, &parsed, &err), 0);
    assert_is_the_image(parsed);
    assert_true(id_equal(&parsed->manifest, &image->manifest));
    for (size_t cut = 0; cut < len; cut++) {
        struct image *none;
        assert_int_equal(image_parse(text, cut, &none, &err), ERR_INVALID);
    }
}

/* One image has one manifest: what says the same in another way is refused. */
static void test_image__parse_wants_canonical_form(void **state)
{
    struct world *world = *state;
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(owned_free) char *text = manifest_text(world, image);
    OWNED(owned_free) char *space = file_path("%s ", text);
    OWNED(owned_free) char *extra = file_path("{\"aaaa\":1,%s", text + 1);
    OWNED(owned_free) char *escaped = strdup(text);
    OWNED(owned_free)
    char *longer = file_path("%.*s\\u0061%s", (int)(strstr(text, "app:1") - text), text, strstr(text, "app:1") + 1);
    char *other = strstr(escaped, "cmig image");
    memcpy(other, "some image", 10);
    const char *variants[] = {space, extra, escaped, longer};
    for (size_t i = 0; i < 4; i++) {
        struct err err = {0};
        struct image *none;
        assert_int_equal(image_parse(variants[i], strlen(variants[i]), &none, &err), ERR_INVALID);
        assert_non_null(strstr(err.text, "canonical"));
    }
}

/* A document whose bytes do not have the digest by which it is named is not read, however well it reads. */
static void test_image__documents_have_their_digests(void **state)
{
    struct world *world = *state;
    OWNED(buf_release) struct buf lower = BUF(1u << 20), upper = BUF(1u << 20), config = BUF(1u << 20);
    make_layers(&lower, &upper);
    make_config(&config, MACHINE_TEXT, &lower, &upper);
    make_layout(world->layout, &(struct layout){0});
    struct blob blob = blob_of(&config);
    OWNED(owned_free) char *path = file_path("%s/blobs/sha256/%s", world->layout, blob.digest + 7);
    *(char *)memmem(config.data, config.len, "1000:100", 8) = '0';
    write_text(path, config.data, config.len);
    struct err err = {0};
    assert_int_equal(import_path(world, world->layout, IMAGE_FORMAT_OCI, NULL, NULL, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "does not have its digest"));
}

/* faults 38: in our own manifest too */
static void test_image__parse_refuses_sums(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_layout(world);
    OWNED(owned_free) char *text = manifest_text(world, image);
    char one[100], digest[DIGEST_TEXT_SIZE];
    snprintf(one, sizeof one, "%s", digest_text(&image->layers[0].diff_id, digest));
    char *second = strstr(text, digest_text(&image->layers[1].diff_id, digest));
    memcpy(second, one, strlen(one)); /* one layer, two sizes */
    struct image *none;
    assert_int_equal(image_parse(text, strlen(text), &none, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "two sizes"));
}

static void test_image__formats_by_name(void **state)
{
    (void)state;
    enum image_format format;
    assert_true(image_format_parse("oci", &format) && format == IMAGE_FORMAT_OCI);
    assert_true(image_format_parse("docker", &format) && format == IMAGE_FORMAT_DOCKER);
    assert_true(image_format_parse("rootfs", &format) && format == IMAGE_FORMAT_ROOTFS);
    assert_false(image_format_parse("OCI", &format));
    assert_false(image_format_parse("", &format));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_image__##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(import_layout),
        TEST(formats_agree),
        TEST(import_can_be_cancelled),
        TEST(archive_can_be_cancelled),
        TEST(rootfs),
        TEST(import_fd),
        TEST(manifests_that_do_not_add_up),
        TEST(hostile_manifests),
        TEST(oversized_manifests),
        TEST(two_faced_documents),
        TEST(deep_index),
        TEST(docker_paths_stay_inside),
        TEST(archive_that_leads_out),
        TEST(hostile_names),
        TEST(get),
        TEST(replace_and_remove),
        TEST(export_and_again),
        TEST(adopt),
        TEST(adopt_refuses_forgeries),
        TEST(adopt_keeps_local_names),
        TEST(unpack_layers),
        TEST(hostile_layer),
        TEST(layers_gc),
        TEST(parse_is_strict),
        TEST(parse_wants_canonical_form),
        TEST(documents_have_their_digests),
        TEST(parse_refuses_sums),
        cmocka_unit_test(test_image__formats_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
