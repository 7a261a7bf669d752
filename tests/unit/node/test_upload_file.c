#include "tests/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "node/api/client.h"
#include "node/api/descriptor.h"
#include "node/api/http.h"
#include "node/api/json.h"
#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/net/work.h"
#include "node/upload_file.h"

#define FILE_BYTES (20u << 20) /* some turns */
#define REQUEST_MS 1500

/* A server whose uploads are hashed, with its loop in a thread of its own. */
struct fixture {
    char dir[64];
    char path[96];
    uv_loop_t loop;
    uv_async_t stop;
    pthread_t thread;
    struct api_server *server;
    struct work *work;
    struct api_route route;
    struct api_client *client;
    struct err err;
    int shrunk;  /* -1, or what becomes shorter once some of it was read */
    bool hold;   /* the first bytes: they are taken after go_on */
    int stays;   /* -1, or a client that leaves after the server */
    bool refuse; /* all of them, in the end */
    bool stopped;
    unsigned uploads;
    sem_t begun, go_on, cancelled, freed;
    atomic_uint finished;
    atomic_ullong bytes; /* of the last upload */
};

/* ---- system calls that another machine may have to answer: who makes them ---- */

static pthread_t looked_by, closed_by;
static atomic_int looked_at = -1;

int fstatfs(int fd, struct statfs *ret_fs)
{
    looked_by = pthread_self();
    atomic_store(&looked_at, fd);
    return (int)syscall(SYS_fstatfs, fd, ret_fs);
}

int close(int fd)
{
    if (fd >= 0 && fd == atomic_load(&looked_at))
        closed_by = pthread_self();
    return (int)syscall(SYS_close, fd);
}

struct sink {
    struct fixture *fixture;
    struct crypto_sha256 *hash; /* owned */
};

static int sink_write(void *ctx, const void *data, size_t len, struct err *err)
{
    struct sink *sink = ctx;
    struct fixture *f = sink->fixture;
    (void)err;
    if (atomic_load(&f->bytes) == 0 && f->hold) {
        sem_post(&f->begun);
        sem_wait(&f->go_on);
    }
    if (atomic_load(&f->bytes) == 0 && f->shrunk >= 0)
        assert_int_equal(ftruncate(f->shrunk, 3 << 20), 0);
    crypto_sha256_add(sink->hash, data, len);
    atomic_fetch_add(&f->bytes, len);
    return 0;
}

static json_t *sink_finish(void *ctx, struct err *err)
{
    struct sink *sink = ctx;
    struct id digest;
    char name[DIGEST_TEXT_SIZE];
    atomic_fetch_add(&sink->fixture->finished, 1);
    if (sink->fixture->refuse) {
        err_set(err, ERR_UNSUPPORTED, "this is for another machine");
        return NULL;
    }
    crypto_sha256_take(sink->hash, &digest);
    return json_pack("{s:s, s:I}", "digest", digest_text(&digest, name), "size_bytes",
                     (json_int_t)atomic_load(&sink->fixture->bytes));
}

static void sink_free(void *ctx)
{
    struct sink *sink = ctx;
    struct fixture *f = sink->fixture;
    crypto_sha256_free(sink->hash);
    free(sink);
    sem_post(&f->freed);
}

static void sink_cancel(void *ctx)
{
    struct sink *sink = ctx;
    sem_post(&sink->fixture->cancelled);
}

static void on_put(void *ctx, struct api_request *req)
{
    static const struct upload_sink ops = {
        .write = sink_write, .finish = sink_finish, .free = sink_free, .cancel = sink_cancel};
    struct fixture *f = ctx;
    struct sink *sink = malloc(sizeof *sink);
    sink->fixture = f;
    crypto_sha256_new(&sink->hash, NULL);
    atomic_store(&f->bytes, 0);
    f->uploads++;
    upload_begin(req, work_jobs(f->work), &ops, sink, 201);
}

/* ---- the server ---- */

static void on_stop(uv_async_t *async)
{
    struct fixture *f = async->data;
    api_server_free(f->server);
    uv_close((uv_handle_t *)async, NULL);
}

static void *serve(void *ctx)
{
    struct fixture *f = ctx;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/cmig-upload-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/node.sock", f->dir);
    f->shrunk = f->stays = -1;
    f->route = (struct api_route){"POST", "/v1/objects", API_BODY_STREAM, on_put};
    sem_init(&f->begun, 0, 0);
    sem_init(&f->go_on, 0, 0);
    sem_init(&f->cancelled, 0, 0);
    sem_init(&f->freed, 0, 0);
    uv_loop_init(&f->loop);
    uv_async_init(&f->loop, &f->stop, on_stop);
    f->stop.data = f;
    assert_int_equal(work_new(&f->loop, &f->work, &f->err), 0);
    struct api_server_config config = {.loop = &f->loop,
                                       .socket_path = f->path,
                                       .routes = &f->route,
                                       .route_count = 1,
                                       .ctx = f,
                                       .request_ms = REQUEST_MS};
    assert_int_equal(api_server_new(&config, &f->server, &f->err), 0);
    assert_int_equal(api_client_new(f->path, &f->client, &f->err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (!f->stopped)
        uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
    if (f->stays >= 0)
        close(f->stays);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    work_free(f->work);
    api_client_free(f->client);
    file_remove_tree(f->dir, NULL);
    sem_destroy(&f->begun);
    sem_destroy(&f->go_on);
    sem_destroy(&f->cancelled);
    sem_destroy(&f->freed);
    free(f);
    return 0;
}

static bool await(sem_t *sem)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    return sem_timedwait(sem, &until) == 0;
}

/* ---- files ---- */

static int pattern_file(size_t len, struct id *ret_digest)
{
    OWNED(owned_free) uint8_t *data = malloc(len + 1);
    int fd = memfd_create("pattern", MFD_CLOEXEC);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 13));
    assert_int_equal(file_write_all(fd, data, len, "pattern", NULL), 0);
    crypto_sha256(data, len, ret_digest);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* ---- a client that may do anything ---- */

static int ask(struct fixture *f, const char *query)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 10};
    char request[256];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, f->path);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    int len = snprintf(request, sizeof request, "POST /v1/objects?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", query);
    assert_int_equal(send(fd, request, (size_t)len, MSG_NOSIGNAL), len);
    return fd;
}

/* What comes until `end` has. */
static void hear(int fd, const char *end, char *text, size_t size)
{
    size_t used = 0;
    ssize_t got;
    text[0] = '\0';
    while (!strstr(text, end) && used < size - 1 && (got = recv(fd, text + used, size - 1 - used, 0)) > 0) {
        used += (size_t)got;
        text[used] = '\0';
    }
    if (!strstr(text, end))
        fail_msg("no '%s' in '%s'", end, text);
}

/* The answer to what is handed over in this place. */
static void hand_over(struct fixture *f, int file, char *text, size_t size)
{
    OWNED(owned_fd) int fd = ask(f, "from=descriptor");
    hear(fd, "\"send\"", text, size);
    assert_int_equal(api_descriptor_send(fd, file, &f->err), 0);
    hear(fd, "\r\n0\r\n", text, size);
    assert_true(await(&f->freed));
}

static char text[1 << 16];

static void assert_refused(struct fixture *f, int file, const char *code)
{
    char want[64];
    hand_over(f, file, text, sizeof text);
    snprintf(want, sizeof want, "\"code\":\"%s\"", code);
    if (!strstr(text, "\"event\":\"error\"") || !strstr(text, want))
        fail_msg("expected %s: %s", code, text);
    assert_int_equal(atomic_load(&f->finished), 0);
}

/* ---- tests ---- */

static void note_progress(void *ctx, uint64_t done, uint64_t total)
{
    assert_int_equal(total, FILE_BYTES);
    *(uint64_t *)ctx = done;
}

static void test_upload_file__gives_the_digest_of_the_file(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {0, 1, 4096, UPLOAD_BLOCK_BYTES, UPLOAD_BLOCK_BYTES + 1, FILE_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct id digest;
        char want[DIGEST_TEXT_SIZE];
        uint64_t done = 0;
        OWNED(owned_json) json_t *reply = NULL;
        OWNED(owned_fd) int file = pattern_file(sizes[i], &digest);
        struct api_call call = {.route = API_ROUTE_object_put, .query = "kind=blob"};
        bool large = sizes[i] == FILE_BYTES;
        if (api_client_upload(f->client, &call, file, (int64_t)sizes[i], large ? note_progress : NULL, &done, &reply,
                              &f->err) < 0)
            fail_msg("%s", f->err.text);
        assert_string_equal(api_json_text(reply, "digest"), digest_text(&digest, want));
        assert_null(json_object_get(reply, "event"));
        assert_int_equal(done, large ? FILE_BYTES : 0);
        assert_int_equal(lseek(file, 0, SEEK_CUR), sizes[i]); /* as if it had been read */
        assert_true(await(&f->freed));
    }
}

static void test_upload_file__reads_from_the_beginning_whatever_the_position(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    char want[DIGEST_TEXT_SIZE];
    OWNED(owned_fd) int file = pattern_file(100000, &digest);
    lseek(file, 777, SEEK_SET);
    hand_over(f, file, text, sizeof text);
    assert_non_null(strstr(text, digest_text(&digest, want)));
    assert_int_equal(lseek(file, 0, SEEK_CUR), 777); /* which is the client's */
}

static void test_upload_file__refuses_what_is_no_regular_file(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), null = open("/dev/zero", O_RDONLY);
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    assert_refused(f, dir, "invalid");
    assert_refused(f, null, "invalid");
    assert_refused(f, pipe_ends[0], "invalid");
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

static void test_upload_file__refuses_what_is_not_open_for_reading(void **state)
{
    struct fixture *f = *state;
    char path[128];
    snprintf(path, sizeof path, "%s/file", f->dir);
    assert_int_equal(file_write_atomic(path, "secret", 6, 0600, &f->err), 0);
    OWNED(owned_fd) int written = open(path, O_WRONLY | O_CLOEXEC), named = open(path, O_PATH | O_CLOEXEC);
    assert_refused(f, written, "invalid");
    assert_refused(f, named, "invalid");
}

/* What a file of proc says may depend on who reads it: this is for the client to read. */
static void test_upload_file__leaves_made_up_files_to_the_client(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    assert_refused(f, status, "unsupported");
    uint64_t size;
    assert_int_equal(upload_file_check(status, &size, &f->err), ERR_UNSUPPORTED);
}

/* ... which reads it by itself. */
static void test_upload_file__goes_on_with_the_bytes(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_json) json_t *reply = NULL;
    OWNED(owned_fd) int notes = open("/sys/kernel/notes", O_RDONLY | O_CLOEXEC);
    if (notes < 0)
        skip();
    struct stat st;
    assert_int_equal(fstat(notes, &st), 0);
    struct api_call call = {.route = API_ROUTE_object_put};
    assert_int_equal(api_client_upload(f->client, &call, notes, st.st_size, NULL, NULL, &reply, &f->err), 0);
    assert_int_equal(api_json_number(reply, "size_bytes"), st.st_size);
}

/* ... but not once more, when what was read is what is not wanted. */
static void test_upload_file__is_not_sent_after_it_was_read(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(FILE_BYTES, &digest);
    struct api_call call = {.route = API_ROUTE_object_put};
    f->refuse = true;
    assert_int_equal(api_client_upload(f->client, &call, file, FILE_BYTES, NULL, NULL, NULL, &f->err), ERR_UNSUPPORTED);
    assert_true(await(&f->freed));
    assert_int_equal(f->uploads, 1);
}

/* A file system that is far away may take its time, and the loop has others to serve. */
static void test_upload_file__is_looked_at_and_closed_by_jobs(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(100, &digest);
    closed_by = f->thread;
    hand_over(f, file, text, sizeof text);
    assert_false(pthread_equal(looked_by, f->thread));
    assert_false(pthread_equal(closed_by, f->thread));
}

static void test_upload_file__comes_without_a_body(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int fd = ask(f, "from=descriptor HTTP/1.1\r\nContent-Length: 5\r\nHost: localhost\r\n\r\nhello");
    hear(fd, "no body", text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 400"));
    assert_true(await(&f->freed));
}

static void test_upload_file__tells_when_the_file_shrinks(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(FILE_BYTES, &digest);
    f->shrunk = file;
    assert_refused(f, file, "conflict");
    assert_non_null(strstr(text, "became shorter"));
}

static void test_upload_file__stops_when_the_client_leaves(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(FILE_BYTES, &digest);
    f->hold = true;
    int fd = ask(f, "from=descriptor");
    hear(fd, "\"send\"", text, sizeof text);
    assert_int_equal(api_descriptor_send(fd, file, &f->err), 0);
    assert_true(await(&f->begun));
    close(fd);
    assert_true(await(&f->cancelled));
    sem_post(&f->go_on);
    assert_true(await(&f->freed));
    assert_int_equal(atomic_load(&f->finished), 0);
    assert_true(atomic_load(&f->bytes) < FILE_BYTES);
}

static void *go_on_when_cancelled(void *ctx)
{
    struct fixture *f = ctx;
    if (await(&f->cancelled))
        sem_post(&f->go_on);
    return NULL;
}

/* The server stops while a job reads: the teardown waits for it. */
static void test_upload_file__of_a_server_that_stops(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(FILE_BYTES, &digest);
    pthread_t other;
    f->hold = true;
    f->stays = ask(f, "from=descriptor");
    hear(f->stays, "\"send\"", text, sizeof text);
    assert_int_equal(api_descriptor_send(f->stays, file, &f->err), 0);
    assert_true(await(&f->begun));
    assert_int_equal(pthread_create(&other, NULL, go_on_when_cancelled, f), 0);
    f->stopped = true;
    uv_async_send(&f->stop);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_true(await(&f->freed));
    assert_int_equal(atomic_load(&f->finished), 0);
}

/* faults 24: what never comes is not waited for */
static void test_upload_file__does_not_wait_for_ever(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int silent = ask(f, "from=descriptor");
    hear(silent, "\"send\"", text, sizeof text);
    assert_true(await(&f->freed)); /* after REQUEST_MS */
    assert_int_equal(atomic_load(&f->finished), 0);
}

static void test_upload_file__refuses_a_byte_without_a_file(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int fd = ask(f, "from=descriptor");
    hear(fd, "\"send\"", text, sizeof text);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    hear(fd, "\"code\":\"invalid\"", text, sizeof text);
    assert_true(await(&f->freed));
}

static void test_upload_file__of_a_client_that_left_before(void **state)
{
    struct fixture *f = *state;
    int fd = ask(f, "from=descriptor");
    hear(fd, "\"send\"", text, sizeof text);
    close(fd);
    assert_true(await(&f->freed));
    fd = ask(f, "from=descriptor");
    hear(fd, "\"send\"", text, sizeof text);
    shutdown(fd, SHUT_WR);
    hear(fd, "\"code\":\"closed\"", text, sizeof text);
    close(fd);
    assert_true(await(&f->freed));
}

static void test_upload_file__leaves_the_connection_usable(void **state)
{
    struct fixture *f = *state;
    struct id digest;
    OWNED(owned_fd) int file = pattern_file(100, &digest), fd = ask(f, "from=descriptor");
    for (int i = 0; i < 3; i++) {
        hear(fd, "\"send\"", text, sizeof text);
        assert_int_equal(api_descriptor_send(fd, file, &f->err), 0);
        hear(fd, "\r\n0\r\n", text, sizeof text);
        assert_non_null(strstr(text, "\"result\""));
        assert_true(await(&f->freed));
        static const char again[] = "POST /v1/objects?from=descriptor HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_int_equal(send(fd, again, sizeof again - 1, MSG_NOSIGNAL), sizeof again - 1);
    }
    hear(fd, "\"send\"", text, sizeof text);
}

static void test_upload_file__is_asked_for_by_its_name(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_fd) int fd = ask(f, "from=magic");
    hear(fd, "'from'", text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 400"));
    assert_true(await(&f->freed));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(test_upload_file__##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(gives_the_digest_of_the_file),
        CASE(reads_from_the_beginning_whatever_the_position),
        CASE(refuses_what_is_no_regular_file),
        CASE(refuses_what_is_not_open_for_reading),
        CASE(leaves_made_up_files_to_the_client),
        CASE(goes_on_with_the_bytes),
        CASE(is_not_sent_after_it_was_read),
        CASE(is_looked_at_and_closed_by_jobs),
        CASE(comes_without_a_body),
        CASE(tells_when_the_file_shrinks),
        CASE(stops_when_the_client_leaves),
        CASE(of_a_server_that_stops),
        CASE(does_not_wait_for_ever),
        CASE(refuses_a_byte_without_a_file),
        CASE(of_a_client_that_left_before),
        CASE(leaves_the_connection_usable),
        CASE(is_asked_for_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
