/* What the user left open in a spec, from the image's config (OCI image-spec v1.1, config.md). */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/image/image.h"
#include "node/runtime/spec.h"
#include "node/runtime/table.h"

#define ACCOUNTS_MAX_BYTES (1u << 20) /* of etc/passwd, etc/group */

/* ---- strings ---- */

static int append(struct runtime_strings *strings, char *const *items, size_t count, struct err *err)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < count; i++)
        status = runtime_strings_add(strings, items[i], err);
    return status;
}

/* The entry point, then what the user gave or else the image's command. */
static int fill_args(struct runtime_spec *spec, const struct image *image, struct err *err)
{
    OWNED(runtime_strings_release) struct runtime_strings args = {0};
    int status = append(&args, image->entrypoint, image->entrypoint_count, err);
    if (status == 0 && spec->args.count > 0)
        status = append(&args, spec->args.items, spec->args.count, err);
    else if (status == 0)
        status = append(&args, image->cmd, image->cmd_count, err);
    if (status == 0 && args.count == 0)
        status = err_set(err, ERR_INVALID, "image '%s' names no command, so one must be given", spec->image);
    if (status < 0)
        return status;
    struct runtime_strings before = spec->args;
    spec->args = args;
    args = before;
    return 0;
}

static bool has_name_of(const struct runtime_strings *pairs, const char *pair)
{
    size_t len = strcspn(pair, "=");
    for (size_t i = 0; i < pairs->count; i++)
        if (strcspn(pairs->items[i], "=") == len && strncmp(pairs->items[i], pair, len) == 0)
            return true;
    return false;
}

static int add_missing(struct runtime_strings *pairs, const char *pair, struct err *err)
{
    return has_name_of(pairs, pair) ? 0 : runtime_strings_add(pairs, pair, err);
}

static int fill_pairs(struct runtime_spec *spec, const struct image *image, struct err *err)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < image->env_count; i++)
        status = add_missing(&spec->env, image->env[i], err);
    for (size_t i = 0; status == 0 && i < image->label_count; i++) {
        OWNED(owned_free) char *pair = file_path("%s=%s", image->labels[i].key, image->labels[i].value);
        status = pair ? add_missing(&spec->labels, pair, err) : err_set(err, ERR_NOMEM, "no memory for labels");
    }
    return status;
}

/* ---- users ---- */

/* The uppermost layer's file of this name: 1 and its content, or 0. Not through symlinks, which would lead out of the
 * layer; a whiteout, which is a device, hides those below. */
static int read_layer_file(struct runtime *runtime, const struct image *image, const char *name, struct buf *content)
{
    for (size_t i = image->layer_count; i-- > 0;) {
        char hex[ID_HEX_SIZE];
        OWNED(owned_free) char *layer = file_path("%s/%s", runtime->layers_dir, id_hex(&image->layers[i].diff_id, hex));
        OWNED(owned_fd) int dir = layer ? open(layer, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
        const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                                     .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
        OWNED(owned_fd) int fd = dir < 0 ? -1 : (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
        struct stat st;
        if (fd < 0)
            continue;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)content->max)
            return 0;
        size_t len = (size_t)st.st_size;
        uint8_t *data = buf_reserve(content, len);
        if (!data || file_pread_all(fd, data, len, 0, name, NULL) < 0)
            return 0;
        content->len += len;
        return 1;
    }
    return 0;
}

static bool parse_number(const char *text, uint32_t *ret_number)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || number > SPEC_MAX_UID)
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

/* The line of passwd(5) or group(5) whose name, or number if `key` is one, is `key`: its third and fourth field, the
 * latter 0 if it is no number (in group it is not). */
static bool find_account(struct runtime *runtime, const struct image *image, const char *file, const char *key,
                         uint32_t *ret_id, uint32_t *ret_group)
{
    OWNED(buf_release) struct buf content = BUF(ACCOUNTS_MAX_BYTES);
    if (!read_layer_file(runtime, image, file, &content))
        return false;
    uint32_t number;
    bool by_number = parse_number(key, &number);
    char *rest = (char *)buf_str(&content); /* our own buffer, to be cut up */
    for (char *line; (line = strsep(&rest, "\n"));) {
        const char *fields[4] = {"", "", "", ""};
        for (size_t i = 0; line && i < 4; i++)
            fields[i] = strsep(&line, ":");
        uint32_t id, group = 0;
        if (!parse_number(fields[2], &id) || (by_number ? id != number : strcmp(fields[0], key) != 0))
            continue;
        *ret_id = id;
        *ret_group = parse_number(fields[3], &group) ? group : 0;
        return true;
    }
    return false;
}

/* "user", "user:group", each a name or a number. A user that is only a number need not be in passwd. */
static int fill_user(struct runtime *runtime, struct runtime_spec *spec, const struct image *image, struct err *err)
{
    if (spec->uid != 0 || spec->gid != 0 || !image->user || !image->user[0])
        return 0;
    int status = image_unpack_layers(runtime->options.store, image, runtime->layers_dir, err);
    OWNED(owned_free) char *user = strdup(image->user);
    if (status < 0 || !user)
        return status < 0 ? status : err_set(err, ERR_NOMEM, "no memory for a user's name");
    char *group = strchr(user, ':');
    if (group)
        *group++ = '\0';
    uint32_t uid = 0, gid = 0, unused;
    if (!find_account(runtime, image, "etc/passwd", user, &uid, &gid) && !parse_number(user, &uid))
        return err_set(err, ERR_INVALID, "image '%s' runs as '%.64s', who is not in its etc/passwd", spec->image, user);
    if (group && group[0] && !parse_number(group, &gid) &&
        !find_account(runtime, image, "etc/group", group, &gid, &unused))
        return err_set(err, ERR_INVALID, "image '%s' runs in group '%.64s', which is not in its etc/group", spec->image,
                       group);
    spec->uid = uid;
    spec->gid = gid;
    return 0;
}

static int fill_workdir(struct runtime_spec *spec, const struct image *image, struct err *err)
{
    if (spec->workdir && spec->workdir[0])
        return 0;
    const char *workdir = image->workdir && image->workdir[0] ? image->workdir : "/";
    size_t len = strlen(workdir);
    char *copy = strndup(workdir, len > 1 && workdir[len - 1] == '/' ? len - 1 : len);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    free(spec->workdir);
    spec->workdir = copy;
    return 0;
}

int runtime_fill(struct runtime *runtime, struct runtime_spec *spec, struct err *err)
{
    OWNED(owned_image) struct image *image = NULL;
    int status = runtime_spec_check(spec, false, err);
    if (status == 0)
        status = image_get(runtime->options.store, spec->image, &image, err);
    if (status < 0)
        return status;
    /* Held over the unpacking and the reading of its files. */
    pthread_rwlock_rdlock(&runtime->layers);
    status = fill_user(runtime, spec, image, err);
    pthread_rwlock_unlock(&runtime->layers);
    if (status == 0)
        status = fill_args(spec, image, err);
    if (status == 0)
        status = fill_pairs(spec, image, err);
    if (status == 0)
        status = fill_workdir(spec, image, err);
    if (status < 0)
        return status;
    spec->manifest = image->manifest;
    return runtime_spec_check(spec, true, err);
}
