/*
 * cmig-exec LOG PROGRAM [ARGUMENT...]: what every container starts with.
 *
 * Gives the program descriptors that a checkpoint can describe, files of the container's own mounts: /dev/null as
 * standard input and LOG, opened for appending, as standard output and error. Then becomes the program. Static and
 * alone: it runs where no library of ours, or none at all, is to be found. Ends with 127 if there is no such program,
 * 126 if it cannot be started, 125 if the container is not as it should be: what shells and container engines use.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int complain(int exit_code, const char *what, const char *subject)
{
    dprintf(STDERR_FILENO, "cmig-exec: %s '%s': %s\n", what, subject, strerror(errno));
    return exit_code;
}

/* dup2 clears close-on-exec on the copy; the original is closed unless it is the copy. */
static int become(int fd, int target)
{
    if (fd < 0)
        return -1;
    if (fd == target)
        return fcntl(fd, F_SETFD, 0);
    int status = dup2(fd, target);
    close(fd);
    return status < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        dprintf(STDERR_FILENO, "usage: cmig-exec LOG PROGRAM [ARGUMENT...]\n");
        return 125;
    }
    if (become(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO) < 0)
        return complain(125, "cannot open", "/dev/null");
    if (become(open(argv[1], O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY), STDOUT_FILENO) < 0)
        return complain(125, "cannot open", argv[1]);
    if (dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
        return complain(125, "cannot use", argv[1]);
    execvp(argv[2], argv + 2);
    return complain(errno == ENOENT ? 127 : 126, "cannot start", argv[2]);
}
