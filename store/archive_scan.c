#include <string.h>
#include <sys/stat.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "store/archive_place.h"
#include "store/archive_tar.h"

static int look(const struct store_tar_item *item, store_archive_entry_cb entry_cb, void *entry_ctx, struct err *err)
{
    char path[LIMIT_PATH_BYTES];
    int status = store_place_check_path(item->path, path, err);
    if (status < 0) {
        char text[200];
        return err_wrap(err, "entry '%s'", log_text(item->path, strlen(item->path), text, sizeof text));
    }
    struct store_archive_entry entry = {path, item->hard_link ? S_IFREG : item->mode, item->size_bytes};
    return entry_cb(entry_ctx, &entry) ? 1 : 0;
}

int store_archive_scan(store_archive_read_cb read_cb, void *read_ctx, store_archive_entry_cb entry_cb, void *entry_ctx,
                       struct err *err)
{
    OWNED(owned_tar_reader) struct store_tar_reader *reader = NULL;
    struct store_tar_limits limits = {LIMIT_OBJECT_BYTES, LIMIT_ARCHIVE_RATIO};
    struct store_tar_item item;
    int status = store_tar_reader_new(read_cb, read_ctx, &limits, &reader, err);
    for (uint64_t entries = 0; status == 0; entries++) {
        if (entries == LIMIT_ARCHIVE_ENTRIES)
            return err_set(err, ERR_LIMIT, "the archive has more than %u entries", LIMIT_ARCHIVE_ENTRIES);
        status = store_tar_reader_next(reader, &item, err);
        if (status <= 0)
            return status;
        status = look(&item, entry_cb, entry_ctx, err);
    }
    return status;
}
