#include "store/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"

#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xfe534d42
#endif
#define CIFS_SUPER_MAGIC_ 0xff534d42 /* linux/magic.h has it only in later versions */

static int check_file_system(const char *dir, struct err *err)
{
    struct statfs fs;
    if (statfs(dir, &fs) < 0)
        return err_errno(err, errno, "cannot look at the file system of '%s'", dir);
    unsigned long type = (unsigned long)fs.f_type & 0xffffffff;
    if (type == NFS_SUPER_MAGIC || type == SMB_SUPER_MAGIC || type == SMB2_SUPER_MAGIC || type == CIFS_SUPER_MAGIC_)
        return err_set(err, ERR_UNSUPPORTED, "'%s' is on a network file system; the store needs a local disk", dir);
    return 0;
}

static int busy(int fd, struct err *err)
{
    char text[32] = {0};
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    long pid = got > 0 ? strtol(text, NULL, 10) : 0;
    return err_set(err, ERR_BUSY, "store in use by pid %ld", pid);
}

int store_lock_take(const char *dir, int *ret_fd, struct err *err)
{
    int status = file_make_dirs(dir, 0700, err);
    if (status == 0)
        status = check_file_system(dir, err);
    if (status < 0)
        return status;
    OWNED(owned_free) char *path = file_path("%s/lock", dir);
    if (!path)
        return err_set(err, ERR_NOMEM, "no memory for a path");
    OWNED(owned_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, errno, "cannot open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? busy(fd, err) : err_errno(err, errno, "cannot lock '%s'", path);
    char text[32];
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0)
        return err_errno(err, errno, "cannot write '%s'", path);
    status = file_pwrite_all(fd, text, (size_t)len, 0, path, err);
    if (status < 0)
        return status;
    *ret_fd = steal_fd(&fd);
    return 0;
}
