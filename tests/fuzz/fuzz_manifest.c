/* Image documents of all kinds, as bytes from a peer or a file: our manifest and the OCI config. What is accepted is
 * complete, and a manifest is accepted in one spelling only. */
#include <assert.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/image/manifest.h"

static void check(const struct image *image)
{
    assert(image->layers && image->layer_count >= 1 && image->layer_count <= LIMIT_IMAGE_LAYERS);
    assert(image->created && image->user && image->workdir && image->architecture);
    assert(!image->env[image->env_count] && !image->cmd[image->cmd_count]);
    assert(!image->entrypoint[image->entrypoint_count]);
    for (size_t i = 0; i < image->env_count; i++)
        assert(strchr(image->env[i], '='));
    for (size_t i = 1; i < image->label_count; i++)
        assert(strcmp(image->labels[i - 1].key, image->labels[i].key) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    OWNED(owned_image) struct image *image = NULL, *config = NULL, *again = NULL;
    OWNED(buf_release) struct buf manifest = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_parse(data, size, &image, &err);
    assert(status == 0 || (status < 0 && err.code == status && !image));
    if (status == 0) {
        check(image);
        assert(image_name_is_valid(image->name));
        assert(image_manifest_encode(image, &manifest, &err) == 0);
        assert(manifest.len == size && memcmp(manifest.data, data, size) == 0);
    }
    status = image_config_parse(data, size, &config, &err);
    assert(status == 0 || (status < 0 && err.code == status && !config));
    if (status == 0) {
        check(config);
        for (size_t i = 0; i < config->layer_count; i++)
            config->layers[i].size_bytes = 1;
        buf_clear(&manifest);
        /* what we make of any config, we take back */
        if (image_manifest_seal(config, "fuzz/image:1", &manifest, &err) == 0 && config->config_bytes > 0)
            assert(image_parse(manifest.data, manifest.len, &again, &err) == 0);
    }
    return 0;
}
