#include "node/runtime/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/scope.h"

#define MOUNT_DATA_BYTES 4095 /* mount(2) takes one page of options */

int runtime_bundle_init(struct runtime_bundle *bundle, const char *containers_dir, const struct guid *id,
                        struct err *err)
{
    char text[GUID_TEXT_SIZE];
    guid_text(id, text);
    *bundle = (struct runtime_bundle){
        .home = file_path("%s/%s", containers_dir, text),
        .record = file_path("%s/%s/container.json", containers_dir, text),
        .rw = file_path("%s/%s/rw", containers_dir, text),
        .upper = file_path("%s/%s/rw/upper", containers_dir, text),
        .log = file_path("%s/%s/rw/log", containers_dir, text),
        .work = file_path("%s/%s/work", containers_dir, text),
        .bundle = file_path("%s/%s/bundle", containers_dir, text),
        .rootfs = file_path("%s/%s/bundle/rootfs", containers_dir, text),
    };
    if (bundle->home && bundle->record && bundle->rw && bundle->upper && bundle->log && bundle->work &&
        bundle->bundle && bundle->rootfs)
        return 0;
    runtime_bundle_release(bundle);
    return err_set(err, ERR_NOMEM, "no memory for paths");
}

void runtime_bundle_release(struct runtime_bundle *bundle)
{
    free(bundle->home);
    free(bundle->record);
    free(bundle->rw);
    free(bundle->upper);
    free(bundle->log);
    free(bundle->work);
    free(bundle->bundle);
    free(bundle->rootfs);
    *bundle = (struct runtime_bundle){0};
}

static int make_log(const char *path, uint32_t uid, uint32_t gid, struct err *err)
{
    OWNED(owned_fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, errno, "cannot make the log '%s'", path);
    if (fchown(fd, uid, gid) < 0)
        return err_errno(err, errno, "cannot give the log '%s' to user %u", path, uid);
    return 0;
}

int runtime_bundle_make(const struct runtime_bundle *bundle, uint32_t uid, uint32_t gid, struct err *err)
{
    /* The mode of `upper` becomes that of the container's root directory. */
    const struct {
        const char *path;
        mode_t mode;
    } directories[] = {{bundle->home, 0700}, {bundle->rw, 0700},     {bundle->upper, 0755},
                       {bundle->work, 0700}, {bundle->bundle, 0700}, {bundle->rootfs, 0755}};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        int status = file_make_dirs(directories[i].path, directories[i].mode, err);
        if (status < 0)
            return status;
        if (chmod(directories[i].path, directories[i].mode) < 0) /* whatever the umask is */
            return err_errno(err, errno, "cannot set the mode of '%s'", directories[i].path);
    }
    return make_log(bundle->log, uid, gid, err);
}

/* ---- the overlay ---- */

/* redirect_dir, metacopy and index off: what is in `upper` stays expressible as an archive and complete in itself. */
static const char *const settings[][2] = {
    {"redirect_dir", "off"}, {"metacopy", "off"}, {"index", "off"}, {"xino", "off"}};
#define SETTING_COUNT (sizeof settings / sizeof *settings)

static int configure_layers(int fs, const struct image *image, const char *layers_dir)
{
    for (size_t i = image->layer_count; i-- > 0;) { /* the uppermost first */
        char hex[ID_HEX_SIZE];
        OWNED(owned_free) char *layer = file_path("%s/%s", layers_dir, id_hex(&image->layers[i].diff_id, hex));
        if (!layer || fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", layer, 0) < 0)
            return -1;
    }
    return 0;
}

/* With the mount calls that came in Linux 5.2 and "lowerdir+" of 6.7: no limit on the number of layers. */
static int mount_by_fd(const struct runtime_bundle *bundle, const struct image *image, const char *layers_dir)
{
    OWNED(owned_fd) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "source", "cmig", 0) < 0 ||
        configure_layers(fs, image, layers_dir) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", bundle->upper, 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "workdir", bundle->work, 0) < 0)
        return -1;
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (fsconfig(fs, FSCONFIG_SET_STRING, settings[i][0], settings[i][1], 0) < 0)
            return -1;
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    OWNED(owned_fd) int mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
    if (mount < 0)
        return -1;
    return move_mount(mount, "", AT_FDCWD, bundle->rootfs, MOVE_MOUNT_F_EMPTY_PATH);
}

/* For older kernels: all paths in one page of options, where ',' and ':' and '\\' have meanings. */
static int mount_by_options(const struct runtime_bundle *bundle, const struct image *image, const char *layers_dir,
                            struct err *err)
{
    if (strpbrk(bundle->upper, ",:\\"))
        return err_set(err, ERR_UNSUPPORTED, "this kernel mounts no overlay in '%s': ',' ':' or '\\' in the path",
                       bundle->upper);
    OWNED(buf_release) struct buf options = BUF(MOUNT_DATA_BYTES);
    buf_addf(&options, "upperdir=%s,workdir=%s", bundle->upper, bundle->work);
    for (size_t i = 0; i < SETTING_COUNT; i++)
        buf_addf(&options, ",%s=%s", settings[i][0], settings[i][1]);
    for (size_t i = image->layer_count; i-- > 0;) {
        char hex[ID_HEX_SIZE];
        const char *before = i + 1 == image->layer_count ? ",lowerdir=" : ":";
        buf_addf(&options, "%s%s/%s", before, layers_dir, id_hex(&image->layers[i].diff_id, hex));
    }
    const char *text = buf_str(&options);
    if (options.failed || !text)
        return err_set(err, ERR_UNSUPPORTED,
                       "this kernel cannot mount %zu layers: use Linux 6.7 or later, or a shorter state directory",
                       image->layer_count);
    if (mount("cmig", bundle->rootfs, "overlay", MS_NODEV, text) < 0)
        return err_errno(err, errno, "cannot mount the overlay on '%s'", bundle->rootfs);
    return 0;
}

static int check_rw(const struct runtime_bundle *bundle, struct err *err)
{
    struct stat upper, log;
    if (lstat(bundle->upper, &upper) < 0 || lstat(bundle->log, &log) < 0)
        return err_errno(err, errno, "'%s' is not what a container has written", bundle->rw);
    if (!S_ISDIR(upper.st_mode) || !S_ISREG(log.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is not what a container has written", bundle->rw);
    return 0;
}

int runtime_bundle_mount(const struct runtime_bundle *bundle, const struct image *image, const char *layers_dir,
                         struct err *err)
{
    runtime_bundle_unmount(bundle);
    int status = check_rw(bundle, err);
    if (status < 0)
        return status;
    if (image->layer_count == 0)
        return err_set(err, ERR_INVALID, "image '%s' has no layer to run from", image->name);
    if (mount_by_fd(bundle, image, layers_dir) == 0)
        return 0;
    return mount_by_options(bundle, image, layers_dir, err);
}

void runtime_bundle_unmount(const struct runtime_bundle *bundle)
{
    while (umount2(bundle->rootfs, UMOUNT_NOFOLLOW) == 0)
        ;
    if (errno == EBUSY)
        umount2(bundle->rootfs, UMOUNT_NOFOLLOW | MNT_DETACH);
}

int runtime_bundle_remove(const struct runtime_bundle *bundle, struct err *err)
{
    runtime_bundle_unmount(bundle);
    return file_remove_tree(bundle->home, err);
}
