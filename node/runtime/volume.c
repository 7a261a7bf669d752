#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/runtime/table.h"

OWNED_DEFINE(owned_dir, DIR, closedir)

int runtime_volume_path(struct runtime *runtime, const struct guid *guid, bool make, char **ret_path, struct err *err)
{
    char text[GUID_TEXT_SIZE];
    OWNED(owned_free) char *path = file_path("%s/%s", runtime->volumes_dir, guid_text(guid, text));
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = make ? file_make_dirs(path, 0755, err) : 0;
    if (status == 0)
        *ret_path = STEAL(path);
    return status;
}

int runtime_volume_each(struct runtime *runtime, runtime_volume_cb each, void *ctx, struct err *err)
{
    OWNED(owned_dir) DIR *dir = opendir(runtime->volumes_dir);
    if (!dir)
        return err_errno(err, errno, "cannot list '%s'", runtime->volumes_dir);
    for (struct dirent *item; (item = readdir(dir));) {
        struct guid guid;
        if (!guid_parse(item->d_name, &guid))
            continue;
        OWNED(owned_free) char *path = file_path("%s/%s", runtime->volumes_dir, item->d_name);
        if (!path)
            return err_set(err, ERR_NOMEM, "no memory for a path");
        runtime_lock(runtime);
        const char *user = runtime_table_user_of(runtime, &guid, false);
        char used_by[NAME_MAX_BYTES + 1] = ""; /* a copy: the callback runs without the lock */
        strncpy(used_by, user ? user : "", NAME_MAX_BYTES);
        runtime_unlock(runtime);
        each(ctx, &guid, path, used_by[0] ? used_by : NULL);
    }
    return 0;
}

int runtime_volume_remove(struct runtime *runtime, const struct guid *guid, struct err *err)
{
    char text[GUID_TEXT_SIZE];
    guid_text(guid, text);
    OWNED(owned_free) char *path = file_path("%s/%s", runtime->volumes_dir, text);
    OWNED(owned_free) char *doomed = file_path("%s/.%s.removed", runtime->volumes_dir, text);
    if (!path || !doomed)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    int status = file_remove_tree(doomed, err);
    if (status < 0)
        return status;
    /* Renamed under the lock, so that no container can begin to use what is going away. */
    runtime_lock(runtime);
    const char *user = runtime_table_user_of(runtime, guid, false);
    if (user)
        status = err_set(err, ERR_BUSY, "volume %s is in use by container '%s'", text, user);
    else if (rename(path, doomed) < 0)
        status = err_errno(err, errno, "cannot remove volume %s", text);
    runtime_unlock(runtime);
    return status < 0 ? status : file_remove_tree(doomed, err);
}
