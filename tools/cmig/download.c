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

static int open_output(struct download *down, struct err *err)
{
    struct stat st;
    if (!down->path) {
        down->fd = STDOUT_FILENO;
        return 0;
    }
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

static int take_bytes(void *ctx, const void *data, size_t len, uint64_t total_bytes, struct err *err)
{
    struct download *down = ctx;
    crypto_sha256_add(down->hash, data, len);
    down->bytes += len;
    progress_draw(&down->progress, down->what, down->bytes, total_bytes, 0, 0);
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
    return 0;
}

static void release(struct download *down, bool failed)
{
    progress_end(&down->progress);
    if (down->path && down->fd >= 0)
        close(down->fd);
    if (down->part && down->fd >= 0 && failed)
        unlink(down->part);
    free(down->part);
    if (down->hash)
        crypto_sha256_free(down->hash);
}

int download_run(struct cmig *cmig, const struct api_call *call, const char *path, const char *digest, struct err *err)
{
    struct download down = {.cmig = cmig, .what = "writing", .fd = -1};
    bool to_stdout = !path || strcmp(path, "-") == 0;
    down.path = to_stdout ? NULL : path;
    if (!path && isatty(STDOUT_FILENO))
        return args_misuse(cmig, err,
                           "standard output is a terminal: give -o FILE, or -o - to write to it all the same");
    progress_init(&down.progress, cmig);
    int code = crypto_sha256_new(&down.hash, err);
    if (code == 0)
        code = open_output(&down, err);
    if (code == 0)
        code = api_client_download(cmig->client, call, take_bytes, &down, err);
    if (code == 0)
        code = verify(&down, digest, err);
    if (code == 0)
        code = publish(&down, err);
    release(&down, code < 0);
    return code;
}
