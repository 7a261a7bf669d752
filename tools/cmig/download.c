#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "tools/cmig/cmig.h"

static int open_path(struct download *down, struct err *err)
{
    struct stat st;
    /* A device or a pipe is written to; only what is or becomes a plain file is replaced as a whole. */
    if (stat(down->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        down->fd = open(down->path, O_WRONLY | O_CLOEXEC);
        return down->fd < 0 ? err_errno(err, errno, "cannot write to '%s'", down->path) : 0;
    }
    down->part = file_path("%s.part", down->path);
    if (!down->part)
        return err_set(err, ERR_NOMEM, "out of memory");
    down->fd = open(down->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (down->fd < 0)
        return err_errno(err, errno, "cannot make '%s'", down->part);
    return 0;
}

int download_open(struct cmig *cmig, struct download *ret_down, struct err *err)
{
    const char *path = args_flag(cmig, "output");
    bool to_stdout = !path || strcmp(path, "-") == 0;
    *ret_down = (struct download){.cmig = cmig, .path = to_stdout ? NULL : path, .fd = -1};
    if (cmig->json && to_stdout)
        return args_misuse(cmig, err, "--json needs standard output for itself: give -o FILE");
    if (!path && isatty(STDOUT_FILENO))
        return args_misuse(cmig, err,
                           "standard output is a terminal: give -o FILE, or -o - to write to it all the same");
    if (!to_stdout)
        return open_path(ret_down, err);
    ret_down->fd = STDOUT_FILENO;
    return 0;
}

static int take_bytes(void *ctx, const void *data, size_t len, uint64_t total_bytes, struct err *err)
{
    struct download *down = ctx;
    crypto_sha256_add(down->hash, data, len);
    down->bytes += len;
    progress_draw(&down->progress, "writing", down->bytes, total_bytes, 0, 0);
    return file_write_all(down->fd, data, len, down->path ? down->path : "standard output", err);
}

static int verify(struct download *down, const char *digest, struct err *err)
{
    struct id got;
    char text[DIGEST_TEXT_SIZE];
    crypto_sha256_take(down->hash, &got);
    if (digest && strcmp(digest_text(&got, text), digest) != 0)
        return err_set(err, ERR_CORRUPT, "what the daemon gave for '%s' is '%s'", digest, text);
    return 0;
}

/* Make the file appear under its name, durably. */
static int publish(struct download *down, struct err *err)
{
    if (!down->part)
        return 0;
    int code = file_sync(down->fd, down->part, err);
    if (code < 0)
        return code;
    if (rename(down->part, down->path) < 0)
        return err_errno(err, errno, "cannot rename '%s' to '%s'", down->part, down->path);
    down->published = true;
    return 0;
}

/* Forget what an attempt before has brought. */
static int rewind_output(struct download *down, struct err *err)
{
    crypto_sha256_free(down->hash);
    down->hash = NULL;
    down->bytes = 0;
    if (down->part && (ftruncate(down->fd, 0) < 0 || lseek(down->fd, 0, SEEK_SET) < 0))
        return err_errno(err, errno, "cannot begin '%s' again", down->part);
    return crypto_sha256_new(&down->hash, err);
}

int download_run(struct download *down, const struct api_call *call, const char *digest, struct err *err)
{
    int code = rewind_output(down, err);
    progress_init(&down->progress, down->cmig);
    if (code == 0)
        code = api_client_download(down->cmig->client, call, take_bytes, down, err);
    progress_end(&down->progress);
    if (code == 0)
        code = verify(down, digest, err);
    return code == 0 ? publish(down, err) : code;
}

void download_close(struct download *down)
{
    if (down->path && down->fd >= 0)
        close(down->fd);
    if (down->part && down->fd >= 0 && !down->published)
        unlink(down->part);
    free(down->part);
    crypto_sha256_free(down->hash);
}
