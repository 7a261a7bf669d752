/* The layout that an image came in: what can be made again of plain tars, what is kept as it is, and giving it back. */
#include "tests/test.h"

#include <errno.h>

#include "node/base/limits.h"
#include "node/image/import.h"
#include "node/image/origin.h"
#include "node/image/recompress.h"
#include "tests/unit/image/layout_builder.h"

#define LONG_BYTES 700000
#define PYTHON(level)                                                                                                  \
    "python3 -c 'import gzip,sys;sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()," #level ",mtime=7))'"
/* Two members: no encoder here makes such a file. */
#define TWO_MEMBERS                                                                                                    \
    "sh -c 'cat >/tmp/cmig-two.$$; for m in \"head -c 1000\" \"tail -c +1001\"; do $m /tmp/cmig-two.$$ | "             \
    "gzip -n; done; rm /tmp/cmig-two.$$'"

struct world {
    struct scratch scratch;
    struct store *store;
    struct store *other;
    char *layout;
};

static struct store *open_store(const char *dir, const char *name)
{
    struct err err = {0};
    struct store *store;
    OWNED(owned_free) char *path = file_path("%s/%s", dir, name);
    if (store_open(&(struct store_options){.dir = path, .clock = clock_system()}, &store, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_int_equal(crypto_init(NULL), 0);
    scratch_make(&world->scratch);
    world->layout = file_path("%s/layout", world->scratch.dir);
    world->store = open_store(world->scratch.dir, "store");
    world->other = open_store(world->scratch.dir, "other");
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    store_close(world->store);
    store_close(world->other);
    scratch_remove(&world->scratch);
    free(world->layout);
    free(world);
    return 0;
}

static struct image *import(struct world *world, const char *path, const char *name)
{
    struct err err = {0};
    struct image_list list = {0};
    struct image_import_options options = {.name = name, .scratch_dir = world->scratch.dir};
    if (image_import(world->store, path, &options, &list, &err) < 0)
        fail_msg("%s", err.text);
    struct image *image = STEAL(list.images[0]);
    image_list_release(&list);
    return image;
}

static struct image *import_filtered(struct world *world, const char *filter)
{
    make_layout(world->layout, &(struct layout){.lower_filter = filter, .lower_bytes = LONG_BYTES});
    return import(world, world->layout, NULL);
}

static struct image_origin *origin_of(struct store *store, const struct image *image)
{
    struct err err = {0};
    struct image_origin *origin;
    if (image_origin_get(store, image, &origin, &err) != 1)
        fail_msg("no origin: %s", err.text);
    return origin;
}

/* The export has what the layout has, byte for byte, but for oci-layout, which is always the same. */
static void assert_gives_back(struct world *world, struct store *store, const struct image *image)
{
    struct err err = {0};
    OWNED(buf_release) struct buf tar = BUF(8u << 20);
    if (image_export_original(store, image, collect, &tar, &err) < 0)
        fail_msg("%s", err.text);
    OWNED(owned_free) char *path = file_path("%s/original.tar", world->scratch.dir);
    OWNED(owned_free)
    char *command = file_path(
        "cd %s && rm -rf back && mkdir back && tar -C back -xf original.tar && diff -r -x oci-layout layout back",
        world->scratch.dir);
    write_text(path, tar.data, tar.len);
    assert_int_equal(system(command), 0);
}

static void assert_comes_back_as(struct world *world, const char *filter, enum image_codec codec, unsigned level)
{
    OWNED(owned_image) struct image *image = import_filtered(world, filter);
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
    const struct image_packing *packing = &origin->layers[0].packing;
    if (packing->codec != codec || packing->level != level)
        fail_msg("'%s' came as %s -%u", filter, image_codec_name(packing->codec), packing->level);
    assert_int_equal(origin->layers[1].packing.codec, IMAGE_CODEC_PLAIN);
    assert_int_equal(store_object_stat(world->store, &origin->layers[0].blob.digest, NULL, NULL),
                     codec == IMAGE_CODEC_OPAQUE);
    assert_gives_back(world, world->store, image);
    OWNED(owned_free) char *command = file_path("rm -r %s", world->layout);
    assert_int_equal(system(command), 0);
}

static void test_original__gzip_by_zlib(void **state)
{
    assert_comes_back_as(*state, PYTHON(1), IMAGE_CODEC_GZIP, 1);
    assert_comes_back_as(*state, PYTHON(6), IMAGE_CODEC_GZIP, 6);
    assert_comes_back_as(*state, PYTHON(9), IMAGE_CODEC_GZIP, 9);
}

static void test_original__zstd(void **state)
{
    assert_comes_back_as(*state, "zstd -qc -3", IMAGE_CODEC_ZSTD, 3);
    assert_comes_back_as(*state, "zstd -qc -9 --no-check", IMAGE_CODEC_ZSTD, 9);
    assert_comes_back_as(*state, "zstd -qc -5 --single-thread", IMAGE_CODEC_ZSTD, 5);
}

/* No tar has no bytes; but an object may, and be here before an image that says it is one of its layers. */
static void test_original__empty_layers(void **state)
{
    struct world *world = *state;
    static const char *const filters[] = {PYTHON(6), "zstd -qc -3", TWO_MEMBERS};
    assert_int_equal(image_put_blob(world->store, "", 0, NULL), 0);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        make_layout(world->layout, &(struct layout){.lower_filter = filters[i], .empty_lower = true});
        OWNED(owned_image) struct image *image = import(world, world->layout, NULL);
        assert_gives_back(world, world->store, image);
        OWNED(owned_free) char *command = file_path("rm -r %s", world->layout);
        assert_int_equal(system(command), 0);
    }
}

static void test_original__opaque(void **state)
{
    assert_comes_back_as(*state, TWO_MEMBERS, IMAGE_CODEC_OPAQUE, 0);
    assert_comes_back_as(*state, "zstd -qc --fast=3", IMAGE_CODEC_OPAQUE, 0);
}

/* ---- the encoder ---- */

static void press(const struct image_packing *packing, const struct buf *plain, size_t step, struct buf *out)
{
    struct err err = {0};
    OWNED(owned_recompress) struct image_recompress *press = NULL;
    assert_int_equal(image_recompress_new(packing, plain->len, collect, out, &press, &err), 0);
    for (size_t at = 0; at < plain->len; at += step) {
        size_t len = plain->len - at < step ? plain->len - at : step;
        assert_int_equal(image_recompress_write(press, plain->data + at, len, &err), 0);
    }
    assert_int_equal(image_recompress_finish(press, &err), 0);
}

/* How the bytes come in pieces makes no difference, and what comes out is gzip. */
static void test_original__pieces(void **state)
{
    static const size_t lengths[] = {1, 131071, 131072, 131073, 262144, LONG_BYTES};
    static const uint8_t head[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
    struct image_packing packing = {.codec = IMAGE_CODEC_GZIP, .level = 6, .memory = 8, .head_len = sizeof head};
    (void)state;
    memcpy(packing.head, head, sizeof head);
    for (unsigned blocks = 0; blocks < 2; blocks++) {
        packing.blocks = blocks;
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            OWNED(buf_release) struct buf plain = BUF(1u << 20), once = BUF(1u << 20), pieces = BUF(1u << 20);
            OWNED(buf_release) struct buf back = BUF(1u << 20);
            make_long_layer(&plain, LONG_BYTES);
            plain.len = lengths[i];
            press(&packing, &plain, plain.len, &once);
            press(&packing, &plain, 4093, &pieces);
            assert_true(once.len == pieces.len && memcmp(once.data, pieces.data, once.len) == 0);
            run_filter("gzip -dc", &once, &back);
            assert_true(back.len == plain.len && memcmp(back.data, plain.data, back.len) == 0);
        }
    }
}

/* ---- one manifest, whatever it came as ---- */

static void test_original__manifest_knows_nothing_of_it(void **state)
{
    struct world *world = *state;
    OWNED(owned_image) struct image *gzip = import_filtered(world, PYTHON(6));
    OWNED(owned_image_origin) struct image_origin *first = origin_of(world->store, gzip);
    OWNED(owned_image) struct image *zstd = import_filtered(world, "zstd -qc");
    OWNED(owned_image_origin) struct image_origin *second = origin_of(world->store, zstd);
    assert_true(id_equal(&gzip->manifest, &zstd->manifest));
    assert_false(id_equal(&first->digest, &second->digest));
    assert_int_equal(second->layers[0].packing.codec, IMAGE_CODEC_ZSTD); /* the latest import counts */
    assert_int_equal(store_pinned(world->store, &first->digest, NULL), 0);
    assert_int_equal(store_pinned(world->store, &second->digest, NULL), 1);
}

static void test_original__goes_with_the_name(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_filtered(world, TWO_MEMBERS);
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image), *none = NULL;
    const struct id *blob = &origin->layers[0].blob.digest;
    assert_int_equal(store_pinned(world->store, blob, NULL), 1);
    OWNED(owned_image) struct image *again = import(world, world->layout, "another:2");
    assert_int_equal(image_remove(world->store, image->name, &err), 0);
    assert_int_equal(image_origin_get(world->store, image, &none, &err), 0);
    assert_int_equal(store_pinned(world->store, blob, NULL), 1); /* by the other name */
    assert_gives_back(world, world->store, again);
    assert_int_equal(image_remove(world->store, "another:2", &err), 0);
    assert_int_equal(store_pinned(world->store, blob, NULL), 0);
}

static void test_original__no_layout(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = BUF(1u << 20), upper = BUF(1u << 20);
    OWNED(owned_free) char *path = file_path("%s/root.tar", world->scratch.dir);
    make_layers(&tar, &upper);
    write_text(path, tar.data, tar.len);
    OWNED(owned_image) struct image *image = import(world, path, "root:1");
    buf_clear(&tar);
    assert_int_equal(image_export_original(world->store, image, collect, &tar, &err), ERR_NOTFOUND);
}

/* What docker save writes since version 25: both in one, with the names of the one and the blobs of the other. */
static void test_original__docker_archive_with_layout(void **state)
{
    struct world *world = *state;
    make_layout(world->layout, &(struct layout){.lower_filter = "zstd -qc", .lower_bytes = LONG_BYTES});
    OWNED(owned_image) struct image *direct = import(world, world->layout, NULL);
    char config[ID_HEX_SIZE], lower[ID_HEX_SIZE], upper[ID_HEX_SIZE];
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, direct);
    OWNED(owned_free) char *path = file_path("%s/manifest.json", world->layout);
    OWNED(buf_release) struct buf text = BUF(1u << 16);
    text_of(&text,
            "[{\"Config\":\"blobs/sha256/%s\",\"RepoTags\":[\"x:1\",\"y:2\"],\"Layers\":[\"blobs/sha256/%s\","
            "\"blobs/sha256/%s\"]}]",
            id_hex(&direct->config, config), id_hex(&origin->layers[0].blob.digest, lower),
            id_hex(&origin->layers[1].blob.digest, upper));
    write_text(path, text.data, text.len);
    OWNED(owned_image) struct image *image = import(world, world->layout, NULL);
    assert_string_equal(image->name, "x:1");
    OWNED(owned_image_origin) struct image_origin *same = origin_of(world->store, image);
    assert_true(id_equal(&same->digest, &origin->digest));
    assert_int_equal(unlink(path), 0);
    assert_gives_back(world, world->store, image);
    /* An index.json that leads elsewhere is left, and with it the blobs. */
    put_index(world->layout, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"text/plain\"}]}");
    write_text(path, text.data, text.len);
    assert_int_equal(image_remove(world->store, "x:1", NULL), 0);
    OWNED(owned_image) struct image *plain = import(world, world->layout, NULL);
    OWNED(owned_image_origin) struct image_origin *none = NULL;
    assert_int_equal(image_origin_get(world->store, plain, &none, NULL), 0);
}

static int import_over(struct world *world, const char *blob, const void *data, size_t len, struct err *err)
{
    OWNED(owned_free) char *path = file_path("%s/blobs/sha256/%s", world->layout, blob);
    struct image_import_options options = {.scratch_dir = world->scratch.dir, .name = "other:1"};
    write_text(path, data, len);
    return image_import(world->store, world->layout, &options, NULL, err);
}

/* faults 38: that a layer is here already makes no blob of it true. */
static void test_original__false_blob_of_a_known_layer(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    char hex[ID_HEX_SIZE];
    struct store_usage before, after;
    OWNED(owned_image) struct image *image = import_filtered(world, PYTHON(6));
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
    size_t len = (size_t)origin->layers[0].blob.size_bytes;
    OWNED(owned_free) uint8_t *zeros = calloc(1, len);
    id_hex(&origin->layers[0].blob.digest, hex);
    assert_int_equal(image_remove(world->store, image->name, &err), 0); /* nobody knows the blob any more */
    assert_int_equal(store_usage(world->store, &before, &err), 0);
    assert_int_equal(import_over(world, hex, zeros, len, &err), ERR_CORRUPT);
    assert_int_equal(import_over(world, hex, zeros, len - 1, &err), ERR_CORRUPT);
    assert_int_equal(store_usage(world->store, &after, &err), 0);
    assert_int_equal(after.objects, before.objects);
}

/* ---- between nodes ---- */

static void send_object(struct world *world, const struct id *digest)
{
    struct store_object_info info;
    size_t len;
    assert_int_equal(store_object_stat(world->store, digest, &info, NULL), 1);
    OWNED(owned_free) uint8_t *data = malloc((size_t)info.size_bytes);
    assert_int_equal(store_object_read(world->store, digest, 0, data, (size_t)info.size_bytes, &len, NULL), 0);
    struct store_ingest *ingest;
    assert_int_equal(store_ingest_new(world->other, info.kind, info.chunking, &ingest, NULL), 0);
    assert_int_equal(store_ingest_write(ingest, data, len, NULL), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, NULL), 0);
    store_ingest_free(ingest);
}

static void send_image(struct world *world, const struct image *image)
{
    struct err err = {0};
    OWNED(owned_free) struct id *ids = NULL;
    size_t count;
    assert_int_equal(image_objects(image, &ids, &count, &err), 0);
    for (size_t i = 0; i < count; i++)
        send_object(world, &ids[i]);
    assert_int_equal(image_adopt(world->other, &image->manifest, NULL, &err), 0);
}

/* Running needs no blob; giving the layout back needs the documents, and of blobs only the opaque ones. */
static void test_original__moves(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_filtered(world, TWO_MEMBERS);
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
    OWNED(buf_release) struct buf tar = BUF(8u << 20);
    OWNED(owned_free) struct id *ids = NULL;
    size_t count;
    send_image(world, image);
    assert_int_equal(image_export(world->other, image, collect, &tar, &err), 0);
    assert_int_equal(image_export_original(world->other, image, collect, &tar, &err), ERR_NOTFOUND);
    assert_int_equal(image_origin_objects(origin, false, &ids, &count, &err), 0);
    assert_int_equal(count, 3); /* origin, index, manifest */
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(image_adopt_origin(world->other, image, &origin->digest, &err), ERR_NOTFOUND);
        send_object(world, &ids[i]);
    }
    assert_int_equal(image_adopt_origin(world->other, image, &origin->digest, &err), 0);
    assert_int_equal(image_export_original(world->other, image, collect, &tar, &err), ERR_NOTFOUND);
    send_object(world, &origin->layers[0].blob.digest);
    assert_gives_back(world, world->other, image);
}

/* A changed origin, with its documents, comes to the other node. */
static int adopt_changed(struct world *world, const struct image *image, struct image_origin *origin)
{
    struct err err = {0};
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    OWNED(owned_free) struct id *ids = NULL;
    struct store_ingest *ingest;
    struct store_object_info info;
    size_t count;
    assert_int_equal(image_origin_seal(origin, &bytes, &err), 0);
    assert_int_equal(store_ingest_new(world->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, NULL), 0);
    assert_int_equal(store_ingest_write(ingest, bytes.data, bytes.len, NULL), 0);
    assert_int_equal(store_ingest_finish(ingest, &info, NULL), 0);
    store_ingest_free(ingest);
    assert_int_equal(image_origin_objects(origin, false, &ids, &count, &err), 0);
    for (size_t i = 0; i < count; i++)
        send_object(world, &ids[i]);
    return image_adopt_origin(world->other, image, &origin->digest, &err);
}

/* faults 38, 70: an origin that belongs to another image or contradicts its documents is not taken. */
static void test_original__hostile_origins(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_filtered(world, PYTHON(6));
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
    struct image_origin right = *origin;
    OWNED(buf_release) struct buf tar = BUF(8u << 20);
    send_image(world, image);

    origin->config.b[0] ^= 1;
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->config = right.config;
    origin->layers[0].blob.digest.b[0] ^= 1;
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->layers[0].blob.digest.b[0] ^= 1;
    origin->layers[0].blob.size_bytes++;
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->layers[0].blob.size_bytes--;
    origin->layer_count = 1;
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->layer_count = 2;
    origin->documents[0] = right.documents[1]; /* the manifest leads to no manifest */
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->documents[0] = right.documents[0];
    origin->layers[0].packing.codec = IMAGE_CODEC_PLAIN;
    assert_int_equal(adopt_changed(world, image, origin), ERR_INVALID);
    origin->layers[0].packing.codec = IMAGE_CODEC_GZIP;

    /* A level that gives other bytes is found when they are made, and no such layout is given out. */
    origin->layers[0].packing.level = 1;
    assert_int_equal(adopt_changed(world, image, origin), 0);
    assert_int_equal(image_export_original(world->other, image, collect, &tar, &err), ERR_CORRUPT);
    origin->layers[0].packing.level = 6;
    assert_int_equal(adopt_changed(world, image, origin), 0);
    assert_gives_back(world, world->other, image);
}

static int parse_changed(const char *text, const char *from, const char *to)
{
    struct err err = {0};
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    const char *at = strstr(text, from);
    assert_non_null(at);
    OWNED(owned_free) char *changed = file_path("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    int status = image_origin_parse(changed, strlen(changed), &origin, &err);
    assert_true(status == 0 ? origin != NULL : !origin && err.code == status);
    return status;
}

/* faults 70: what would make an encoder or a buffer large is refused by number. */
static void test_original__hostile_fields(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(owned_image) struct image *image = import_filtered(world, PYTHON(6));
    OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    char long_head[2 * LIMIT_IMAGE_HEAD_BYTES + 40] = "\"head\":\"1f8b0808000000000003";
    assert_int_equal(image_origin_seal(origin, &bytes, &err), 0);
    const char *text = buf_str(&bytes);
    assert_int_equal(parse_changed(text, "\"level\":6", "\"level\":5"), 0);
    assert_int_equal(parse_changed(text, "\"level\":6", "\"level\":0"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"level\":6", "\"level\":10"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"level\":6", "\"level\":262"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"memory\":8", "\"memory\":7"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"memory\":8", "\"memory\":10"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"blocks\":false", "\"blocks\":0"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"codec\":\"gzip\"", "\"codec\":\"zstd\""), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"codec\":\"gzip\"", "\"codec\":\"xz\""), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"head\":\"1f8b", "\"head\":\"1f8c"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"head\":\"1f8b08", "\"head\":\"1f8b08ff"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "\"version\":1", "\"version\":2"), ERR_INVALID);
    assert_int_equal(parse_changed(text, "{", "{ "), ERR_INVALID);
    for (size_t i = strlen(long_head); i < sizeof long_head - 1; i++)
        long_head[i] = '4';
    assert_int_equal(parse_changed(text, "\"head\":\"1f8b0800", long_head), ERR_INVALID);
}

/* ---- heads of files ---- */

static void test_original__heads(void **state)
{
    static const uint8_t named[] = {0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 2, 3, 'a', '.', 't', 0, 0xff};
    static const uint8_t all[] = {0x1f, 0x8b, 8, 0x1e, 0, 0, 0, 0, 0, 3, 2, 0, 'e', 'x', 'n', 0, 'c', 0, 1, 2, 0xff};
    static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x64, 0};
    struct image_packing packing;
    (void)state;
    image_packing_look(named, sizeof named, &packing);
    assert_int_equal(packing.codec, IMAGE_CODEC_GZIP);
    assert_int_equal(packing.head_len, 14);
    image_packing_look(all, sizeof all, &packing);
    assert_int_equal(packing.codec, IMAGE_CODEC_GZIP);
    assert_int_equal(packing.head_len, 20);
    for (size_t len = 0; len < 20; len++) {
        image_packing_look(all, len, &packing);
        assert_int_equal(packing.codec, IMAGE_CODEC_OPAQUE);
    }
    image_packing_look(zstd, sizeof zstd, &packing);
    assert_int_equal(packing.codec, IMAGE_CODEC_ZSTD);
    assert_true(packing.checksum && packing.sized);
}

/* ---- the import's end ---- */

struct patience {
    unsigned asked;
    unsigned end;
};

static bool is_over(void *ctx)
{
    struct patience *patience = ctx;
    return patience->asked++ == patience->end;
}

/* Cancelled at any moment, nothing has a name; in the end it has. */
static void test_original__cancelled_anywhere(void **state)
{
    struct world *world = *state;
    struct err err = {0};
    OWNED(image_list_release) struct image_list list = {0};
    make_layout(world->layout, &(struct layout){.lower_filter = PYTHON(9), .lower_bytes = LONG_BYTES});
    unsigned end = 0;
    int status;
    do {
        struct patience patience = {.end = end};
        struct image_import_options options = {
            .scratch_dir = world->scratch.dir, .is_cancelled = is_over, .ctx = &patience};
        status = image_import(world->store, world->layout, &options, NULL, &err);
        assert_true(status == 0 || status == ERR_CANCELLED);
        assert_int_equal(image_list(world->store, &list, NULL), 0);
        assert_int_equal(list.count, status == 0);
        image_list_release(&list);
        end = 2 * end + 1;
    } while (status < 0);
    assert_true(end > 15); /* the trials ask too */
}

static bool count(void *ctx)
{
    ++*(unsigned *)ctx;
    return false;
}

static unsigned steps_of_import(struct world *world, const char *name)
{
    struct err err = {0};
    unsigned steps = 0;
    struct image_import_options options = {
        .name = name, .scratch_dir = world->scratch.dir, .is_cancelled = count, .ctx = &steps};
    assert_int_equal(image_import(world->store, world->layout, &options, NULL, &err), 0);
    return steps;
}

/* A blob that was tried once is not tried again, whatever came of it. */
static void test_original__known_blobs(void **state)
{
    struct world *world = *state;
    static const char *const filters[] = {PYTHON(9), TWO_MEMBERS};
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        make_layout(world->layout, &(struct layout){.lower_filter = filters[i], .lower_bytes = LONG_BYTES + i});
        unsigned first = steps_of_import(world, "first:1"), second = steps_of_import(world, "second:1");
        assert_true(first > 8 && second <= 2);
        OWNED(owned_image) struct image *image = NULL;
        assert_int_equal(image_get(world->store, "second:1", &image, NULL), 0);
        OWNED(owned_image_origin) struct image_origin *origin = origin_of(world->store, image);
        assert_int_equal(origin->layers[0].packing.codec, i == 0 ? IMAGE_CODEC_GZIP : IMAGE_CODEC_OPAQUE);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_original__##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(gzip_by_zlib),
        TEST(zstd),
        TEST(empty_layers),
        TEST(opaque),
        cmocka_unit_test(test_original__pieces),
        TEST(manifest_knows_nothing_of_it),
        TEST(goes_with_the_name),
        TEST(no_layout),
        TEST(docker_archive_with_layout),
        TEST(false_blob_of_a_known_layer),
        TEST(moves),
        TEST(hostile_origins),
        TEST(hostile_fields),
        cmocka_unit_test(test_original__heads),
        TEST(cancelled_anywhere),
        TEST(known_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
