#include "node/runtime/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/id.h"
#include "node/base/scope.h"

#define MOUNT_POINT "/sys/fs/cgroup"
#define REMOVE_TRIES 100
#define REMOVE_STEP_MS 30

OWNED_DEFINE(owned_dir, DIR, closedir)

const char *runtime_cgroup_path(const char *root, const char *id, char path[CGROUP_PATH_SIZE])
{
    struct id hash;
    char hex[ID_SHORT_SIZE];
    crypto_id_of(root, strlen(root), &hash);
    snprintf(path, CGROUP_PATH_SIZE, "/cmig-%s-%s", id_short(&hash, hex), id);
    return path;
}

/* The group's directory with the file `name`, in whichever tree has it: those of version 1, and "." for version 2. */
static char *find(const char *path, const char *name)
{
    static const char *const trees[] = {"freezer", ".", "unified", "pids", "systemd"};
    for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
        char *file = file_path("%s/%s%s/%s", MOUNT_POINT, trees[i], path, name);
        if (!file || file_exists(file))
            return file;
        free(file);
    }
    return NULL;
}

int runtime_cgroup_signal(const char *path, int signal, struct err *err)
{
    OWNED(owned_free) char *procs = find(path, "cgroup.procs");
    OWNED(owned_file) FILE *file = procs ? fopen(procs, "re") : NULL;
    if (!file)
        return 0;
    long pid;
    while (fscanf(file, "%ld", &pid) == 1)
        if (pid > 0 && kill((pid_t)pid, signal) < 0 && errno != ESRCH)
            return err_errno(err, errno, "cannot send signal %d to process %ld", signal, pid);
    return 0;
}

static void put(const char *path, const char *name, const char *text)
{
    OWNED(owned_free) char *file = find(path, name);
    OWNED(owned_fd) int fd = file ? open(file, O_WRONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        return; /* gone meanwhile: nothing is frozen any more */
}

/* Frozen tasks of version 1 take their SIGKILL only when they thaw. */
static void thaw(const char *path)
{
    put(path, "freezer.state", "THAWED");
    put(path, "cgroup.freeze", "0");
}

/* True when no tree has it any more. */
static bool remove_everywhere(const char *path)
{
    bool gone = true;
    OWNED(owned_dir) DIR *trees = opendir(MOUNT_POINT);
    for (struct dirent *tree; trees && (tree = readdir(trees));) {
        if (strcmp(tree->d_name, "..") == 0)
            continue;
        OWNED(owned_free) char *directory = file_path("%s/%s%s", MOUNT_POINT, tree->d_name, path);
        if (directory && rmdir(directory) < 0 && errno != ENOENT && errno != ENOTDIR)
            gone = false;
    }
    return gone;
}

int runtime_cgroup_remove(const char *path, struct err *err)
{
    for (int i = 0; i < REMOVE_TRIES; i++) {
        if (remove_everywhere(path))
            return 0;
        int status = runtime_cgroup_signal(path, SIGKILL, err);
        if (status < 0)
            return status;
        thaw(path);
        nanosleep(&(struct timespec){.tv_nsec = REMOVE_STEP_MS * 1000000L}, NULL);
    }
    return err_set(err, ERR_BUSY, "processes of the control group '%s' cannot be killed", path);
}
