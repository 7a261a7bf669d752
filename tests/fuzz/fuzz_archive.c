/* Unpacks hostile bytes into a fresh directory, as a volume, as a layer, and over what the first left behind, with
 * budgets small enough for thousands of runs a second. Nothing may appear beside the target. */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/archive.h"

struct feed {
    const uint8_t *data;
    size_t len;
};

static ssize_t feed_read(void *ctx, void *ret_data, size_t room, struct err *err)
{
    struct feed *feed = ctx;
    (void)err;
    size_t len = feed->len < room ? feed->len : room;
    if (len > 0)
        memcpy(ret_data, feed->data, len);
    feed->data += len;
    feed->len -= len;
    return (ssize_t)len;
}

static int discard(void *ctx, const void *data, size_t len, struct err *err)
{
    (void)ctx;
    (void)data;
    (void)len;
    (void)err;
    return 0;
}

static void unpack(int fd, const uint8_t *data, size_t size, bool overlay, bool update)
{
    struct feed feed = {data, size};
    struct err err = {0};
    struct store_archive_unpack_options options = {.overlay = overlay,
                                                   .update = update,
                                                   .ids = STORE_ARCHIVE_IDS_CALLER,
                                                   .max_bytes = 1u << 20,
                                                   .max_entries = 64};
    int status = store_archive_unpack(feed_read, &feed, fd, &options, NULL, &err);
    assert(status <= 0 && (status == 0 || (err.code == status && err.text[0])));
    /* what could be unpacked can be packed, whatever it is */
    if (status == 0 && !overlay)
        assert(store_archive_pack(fd, NULL, discard, NULL, NULL, &err) == 0);
}

static unsigned count_names(const char *dir)
{
    unsigned names = 0;
    DIR *listing = opendir(dir);
    assert(listing);
    while (readdir(listing))
        names++;
    closedir(listing);
    return names;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char dir[] = "/tmp/cmig-fuzz-archive-XXXXXX";
    if (!mkdtemp(dir))
        return 0;
    const char *names[] = {"volume", "layer"};
    for (size_t i = 0; i < 2; i++) {
        OWNED(owned_free) char *path = file_path("%s/%s", dir, names[i]);
        if (mkdir(path, 0700) < 0)
            continue;
        OWNED(owned_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        unpack(fd, data, size, i == 1, false);
        if (i == 0)
            unpack(fd, data, size, false, true);
    }
    assert(count_names(dir) == 4);
    struct err err = {0};
    file_remove_tree(dir, &err);
    return 0;
}
