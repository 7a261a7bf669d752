#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/migrate/manifest.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

#define GUID_A "01234567-89ab-cdef-0123-456789abcdef"
#define GUID_B "11234567-89ab-cdef-0123-456789abcdef"

static struct crypto_sign_key key;

static void sign(void *ctx, const void *data, size_t len_bytes, uint8_t ret_signature[CRYPTO_SIGNATURE_BYTES])
{
    crypto_signature_make(ret_signature, data, len_bytes, ctx);
}

static void add(struct manifest *manifest, enum migrate_role role, enum store_kind kind, const char *name)
{
    struct migrate_object object = {.role = role, .kind = kind, .size_bytes = 7};
    snprintf(object.name, sizeof object.name, "%s", name);
    assert_int_equal(manifest_add(manifest, &object, NULL), 0);
}

static struct manifest sample(void)
{
    struct manifest manifest = {.final = true, .issued_ms = 5};
    guid_parse(GUID_A, &manifest.id);
    struct runtime_container *made = calloc(1, sizeof *made);
    made->spec.name = strdup("web");
    made->spec.image = strdup("web:1");
    made->spec.user = strdup("");
    made->spec.workdir = strdup("/");
    made->spec.args.items = calloc(1, sizeof(char *));
    made->spec.args.items[0] = strdup("/bin/sh");
    made->spec.args.count = 1;
    made->spec.volumes = calloc(1, sizeof *made->spec.volumes);
    made->spec.volume_count = 1;
    made->spec.volumes[0].path = strdup("/data");
    guid_parse(GUID_A, &made->spec.volumes[0].guid);
    guid_parse(GUID_B, &made->id);
    made->state = RUNTIME_RUNNING;
    made->spec.manifest.b[0] = 1;
    manifest.container = made;
    add(&manifest, MIGRATE_IMAGE, STORE_LAYER, "");
    add(&manifest, MIGRATE_CHECKPOINT, STORE_CHECKPOINT, "");
    add(&manifest, MIGRATE_PAGES, STORE_CHECKPOINT, "pages-1.img");
    add(&manifest, MIGRATE_WRITABLE, STORE_VOLUME, "");
    add(&manifest, MIGRATE_VOLUME, STORE_VOLUME, GUID_A);
    return manifest;
}

static json_t *seal(const struct manifest *manifest)
{
    struct migrate_ops ops = {.sign = sign, .ctx = &key};
    json_t *sealed = manifest_seal(manifest, &ops);
    assert_non_null(sealed);
    return sealed;
}

static void test_manifest__comes_back_as_it_was(void **state)
{
    (void)state;
    OWNED(manifest_release) struct manifest manifest = sample();
    OWNED(owned_json) json_t *sealed = seal(&manifest);
    OWNED(manifest_release) struct manifest back = {0};
    struct err err = {0};
    if (manifest_open(sealed, key.public_key, &back, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(back.count, manifest.count);
    assert_true(back.final);
    assert_string_equal(back.container->spec.name, "web");
    assert_non_null(manifest_find(&back, MIGRATE_VOLUME, GUID_A));
    assert_null(manifest_find(&back, MIGRATE_VOLUME, GUID_B));
}

/* faults 74: unsigned, signed by another node, or altered after it was signed */
static void test_manifest__only_the_source_can_have_made_it(void **state)
{
    (void)state;
    OWNED(manifest_release) struct manifest manifest = sample();
    OWNED(owned_json) json_t *sealed = seal(&manifest);
    struct manifest back = {0};
    struct crypto_sign_key other;
    crypto_sign_keygen(&other);
    assert_int_equal(manifest_open(sealed, other.public_key, &back, NULL), ERR_AUTH);

    const char *text = json_string_value(json_object_get(sealed, "text"));
    OWNED(owned_free) char *changed = strdup(text);
    for (size_t i = 0; i < strlen(text); i += 11) {
        changed[i] ^= 1;
        OWNED(owned_json)
        json_t *forged = json_pack("{s:o, s:O}", "text", json_stringn_nocheck(changed, strlen(text)), "signature",
                                   json_object_get(sealed, "signature"));
        assert_int_equal(manifest_open(forged, key.public_key, &back, NULL), ERR_AUTH);
        changed[i] ^= 1;
    }
    OWNED(owned_json) json_t *unsigned_one = json_pack("{s:s}", "text", text);
    assert_int_equal(manifest_open(unsigned_one, key.public_key, &back, NULL), ERR_AUTH);
    assert_int_equal(manifest_open(NULL, key.public_key, &back, NULL), ERR_AUTH);
}

/* faults 47 and 74: a source that signs nonsense gets no further than the manifest */
static void test_manifest__names_and_parts_are_checked(void **state)
{
    (void)state;
    static const struct {
        enum migrate_role role;
        const char *name;
    } bad[] = {
        {MIGRATE_VOLUME, "../../etc"},   {MIGRATE_VOLUME, ""},          {MIGRATE_PAGES, "pages-1.img/../x"},
        {MIGRATE_PAGES, "pages-.img"},   {MIGRATE_PAGES, "core-1.img"}, {MIGRATE_PAGES, "pages-1.img"},
        {MIGRATE_PAGES, "pages--1.img"}, {MIGRATE_WRITABLE, "x"},       {MIGRATE_WRITABLE, ""},
        {MIGRATE_VOLUME, GUID_B}, /* not one that the container mounts */
        {MIGRATE_CHECKPOINT, ""},        {MIGRATE_IMAGE, "name"},       {MIGRATE_PAGES, "pages- 1.img"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        OWNED(manifest_release) struct manifest manifest = sample();
        add(&manifest, bad[i].role, STORE_VOLUME, bad[i].name);
        OWNED(owned_json) json_t *sealed = seal(&manifest);
        struct manifest back = {0};
        assert_int_equal(manifest_open(sealed, key.public_key, &back, NULL), ERR_INVALID);
    }
    OWNED(manifest_release) struct manifest lacking = sample();
    lacking.count--; /* the volume */
    OWNED(owned_json) json_t *sealed = seal(&lacking);
    struct manifest back = {0};
    assert_int_equal(manifest_open(sealed, key.public_key, &back, NULL), ERR_INVALID);
}

static int setup(void **state)
{
    (void)state;
    int status = crypto_init(NULL);
    crypto_sign_keygen(&key);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__comes_back_as_it_was),
        cmocka_unit_test(test_manifest__only_the_source_can_have_made_it),
        cmocka_unit_test(test_manifest__names_and_parts_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
