#include "node/api/listen.h"

#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"

#define SOCKET_MODE 0660
#define DIRECTORY_MODE 0755
#define BACKLOG 64

static int make_directory_of(const char *path, struct err *err)
{
    OWNED(owned_free) char *copy = strdup(path);
    if (!copy)
        return err_set(err, ERR_NOMEM, "out of memory");
    return file_make_dirs(dirname(copy), DIRECTORY_MODE, err);
}

/* Make room for a new socket file at address, unless what is there is alive or not a socket. */
static int remove_leftover(const struct sockaddr_un *address, struct err *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "cannot look at '%s'", address->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return err_set(err, ERR_EXISTS, "'%s' exists and is not a socket", address->sun_path);
    OWNED(owned_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a socket");
    /* EAGAIN: somebody listens, with a full queue. */
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN)
        return err_set(err, ERR_BUSY, "another node answers at '%s'", address->sun_path);
    if (errno != ECONNREFUSED && errno != ENOENT)
        return err_errno(err, errno, "cannot tell whether anybody answers at '%s'", address->sun_path);
    if (unlink(address->sun_path) < 0 && errno != ENOENT)
        return err_errno(err, errno, "cannot remove the old socket '%s'", address->sun_path);
    return 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, const char *group, struct err *err)
{
    /* On Linux the mode of the unbound socket is what bind gives the file, so it is never open to others. */
    if (fchmod(fd, SOCKET_MODE) < 0 || bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return err_errno(err, errno, "cannot make the socket '%s'", address->sun_path);
    const struct group *entry = group ? getgrnam(group) : NULL;
    if (entry && chown(address->sun_path, (uid_t)-1, entry->gr_gid) < 0 && errno != EPERM)
        return err_errno(err, errno, "cannot give '%s' to the group '%s'", address->sun_path, group);
    if (chmod(address->sun_path, SOCKET_MODE) < 0) /* the umask took from it */
        return err_errno(err, errno, "cannot set the mode of '%s'", address->sun_path);
    if (listen(fd, BACKLOG) < 0)
        return err_errno(err, errno, "cannot listen on '%s'", address->sun_path);
    return 0;
}

int api_listener_open(const char *path, const char *group, struct api_listener *ret_listener, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(err, ERR_INVALID, "the socket path '%s' is longer than %zu bytes", path,
                       sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path));
    int code = make_directory_of(path, err);
    if (code < 0 || (code = remove_leftover(&address, err)) < 0)
        return code;
    OWNED(owned_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a socket");
    code = bind_and_listen(fd, &address, group, err);
    if (code < 0)
        return code;
    struct stat status;
    if (lstat(path, &status) < 0)
        return err_errno(err, errno, "cannot look at '%s'", path);
    OWNED(owned_free) char *copy = strdup(path);
    if (!copy)
        return err_set(err, ERR_NOMEM, "out of memory");
    *ret_listener = (struct api_listener){steal_fd(&fd), STEAL(copy), status.st_dev, status.st_ino, status.st_ctim};
    return 0;
}

void api_listener_close(struct api_listener *listener)
{
    struct stat status;
    if (listener->path && lstat(listener->path, &status) == 0 && status.st_dev == listener->device &&
        status.st_ino == listener->inode && status.st_ctim.tv_sec == listener->changed.tv_sec &&
        status.st_ctim.tv_nsec == listener->changed.tv_nsec)
        unlink(listener->path);
    if (listener->fd >= 0)
        close(listener->fd);
    free(listener->path);
    *listener = (struct api_listener){.fd = -1};
}
