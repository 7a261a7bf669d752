#include "node/process.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/log.h"

#define TOKEN_ENV "CMIG_TOKEN"
#define TOKEN_MAX_BYTES 4096
#define JOBS_PATIENCE_MS 4000 /* for jobs that are under way when the node has closed */
#define LOOK_MS 250
#define HEAP_MMAP_BYTES (1 << 20)   /* what is larger than a batch of chunks is mapped for itself */
#define HEAP_SPARE_BYTES (12 << 20) /* kept of what is free at its end: what one transfer needs comes and goes */
#define HEAP_IDLE_BYTES (256 << 10) /* the same, when the node looks after itself */
#define HEAP_ARENAS 2

/* ---- before ---- */

/* Each peer, chunk and log is a descriptor; what containers get is theirs (config.json). */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

bool process_logs_to_journal(const char *stream)
{
    unsigned long long device, inode;
    struct stat st;
    int end = 0;
    return stream && sscanf(stream, "%llu:%llu%n", &device, &inode, &end) == 2 && !stream[end] &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

/* Chunks and batches of them come and go thousands of times a second. Left alone, malloc would get the pages of each
 * from the kernel, zeroed, and give them back. */
static void keep_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, HEAP_MMAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, HEAP_SPARE_BYTES);
    mallopt(M_ARENA_MAX, HEAP_ARENAS);
}

void process_trim_heap(void)
{
    malloc_trim(HEAP_IDLE_BYTES);
}

void process_prepare(const struct config *config)
{
    char workers[16];
    umask(022); /* runc makes mount points under it; what is the node's own names its modes, beneath a 0700 directory */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* the terminal that it was started from may go */
    raise_descriptors();
    keep_heap();
    snprintf(workers, sizeof workers, "%u", config->workers);
    setenv("UV_THREADPOOL_SIZE", workers, 1);
    log_set_level(config->log);
    log_set_journal(process_logs_to_journal(getenv("JOURNAL_STREAM")));
}

/* ---- running ---- */

static void on_signal(uv_signal_t *handle, int number)
{
    struct node *node = handle->data;
    if (node->stopping)
        _exit(128 + number);
    node_stop(node);
}

/* A job may be long: a container that is given an hour to stop, a resolver without an answer. All that is on disk bears
 * being left at any moment. */
static void on_look(uv_timer_t *timer)
{
    const struct node *node = timer->data;
    if (!node->closed || clock_mono_ms(&node->clock) < node->closed_ms + JOBS_PATIENCE_MS)
        return;
    log_warn("node", "stopped in the middle of jobs=%zu", work_pending(node->work));
    _exit(EXIT_SUCCESS);
}

void process_run(struct node *node)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    uv_signal_t signals[sizeof numbers / sizeof *numbers];
    uv_timer_t look;
    uv_loop_t *loop = node->loop;
    uv_timer_init(loop, &look);
    look.data = node;
    uv_timer_start(&look, on_look, LOOK_MS, LOOK_MS);
    uv_unref((uv_handle_t *)&look);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uv_signal_init(loop, &signals[i]);
        signals[i].data = node;
        uv_signal_start(&signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&signals[i]);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        uv_close((uv_handle_t *)&signals[i], NULL);
    uv_close((uv_handle_t *)&look, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
}

/* ---- what it is given ---- */

int process_read_token(const char *path, char **ret_token, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(TOKEN_MAX_BYTES);
    const char *token = path ? NULL : getenv(TOKEN_ENV);
    if (path) {
        int status = file_read(path, &text, err);
        if (status < 0)
            return err_wrap(err, "the invitation's file");
        token = buf_str(&text);
        if (!token || strlen(token) != text.len)
            return err_set(err, ERR_INVALID, "'%s' is longer than an invitation, or no text", path);
    }
    char *copy = token ? strdup(token) : NULL;
    if (token && !copy)
        return err_set(err, ERR_NOMEM, "no memory for an invitation");
    if (text.data)
        crypto_wipe(text.data, text.len);
    unsetenv(TOKEN_ENV);
    *ret_token = copy;
    return 0;
}

bool process_parse_duration(const char *text, uint64_t max_s, uint64_t *ret_seconds)
{
    static const struct {
        char letter;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    uint64_t number = 0, unit = 1;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 9)
        return false;
    for (size_t i = 0; i < digits; i++)
        number = 10 * number + (uint64_t)(text[i] - '0');
    if (text[digits]) {
        size_t i = 0, count = sizeof units / sizeof *units;
        while (i < count && units[i].letter != text[digits])
            i++;
        if (i == count || text[digits + 1])
            return false;
        unit = units[i].seconds;
    }
    if (number == 0 || number * unit > max_s)
        return false;
    *ret_seconds = number * unit;
    return true;
}
