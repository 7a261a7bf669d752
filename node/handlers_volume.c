#include "node/handlers.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/limits.h"

static void owned_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* Sum of the sizes of all files beneath a directory that a container writes to: no link is followed, and depth and
 * number of entries have bounds, beyond which the sum is too low. Takes the descriptor. */
static uint64_t size_of_tree(int dir_fd, unsigned depth, uint64_t *entries_left)
{
    OWNED(owned_dir) DIR *dir = fdopendir(dir_fd);
    uint64_t size_bytes = 0;
    const struct dirent *entry;
    if (!dir)
        close(dir_fd);
    while (dir && *entries_left > 0 && (entry = readdir(dir))) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        --*entries_left;
        if (S_ISREG(st.st_mode))
            size_bytes += (uint64_t)st.st_size;
        int fd = S_ISDIR(st.st_mode) && depth < LIMIT_ARCHIVE_DEPTH
                     ? openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                     : -1;
        if (fd >= 0)
            size_bytes += size_of_tree(fd, depth + 1, entries_left);
    }
    return size_bytes;
}

static uint64_t size_of_volume(const char *path)
{
    uint64_t entries = LIMIT_ARCHIVE_ENTRIES;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : size_of_tree(fd, 0, &entries);
}

static int add_snapshot(const struct store_ref *ref, void *ctx)
{
    char digest[DIGEST_TEXT_SIZE];
    return json_array_append_new(ctx, json_pack("{s:I, s:I, s:s}", "epoch", (json_int_t)ref->version.epoch, "counter",
                                                (json_int_t)ref->version.counter, "digest",
                                                digest_text(&ref->digest, digest)));
}

struct walk {
    struct store *store;
    json_t *volumes; /* borrowed */
};

static void add_volume(void *ctx, const struct guid *guid, const char *path, const char *used_by)
{
    const struct walk *walk = ctx;
    char text[GUID_TEXT_SIZE];
    json_t *snapshots = json_array();
    guid_text(guid, text);
    store_ref_each(walk->store, MIGRATE_REF_VOLUME, text, add_snapshot, snapshots, NULL);
    json_t *users = used_by && *used_by ? json_pack("[s]", used_by) : json_array();
    json_array_append_new(walk->volumes,
                          json_pack("{s:s, s:s, s:I, s:o, s:o}", "guid", text, "path", path, "size_bytes",
                                    (json_int_t)size_of_volume(path), "snapshots", snapshots, "in_use_by", users));
}

static json_t *list_work(struct node *node, void *arg, struct err *err)
{
    (void)arg;
    struct walk walk = {.store = node->store, .volumes = json_array()};
    OWNED(owned_json) json_t *reply = json_pack("{s:o}", "volumes", walk.volumes);
    return runtime_volume_each(node->runtime, add_volume, &walk, err) < 0 ? NULL : STEAL(reply);
}

void handlers_volume_list(void *node, struct api_request *req)
{
    node_answer_from_job(node, req, list_work, NULL, NULL);
}
