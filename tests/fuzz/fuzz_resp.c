/* Bytes of a client: parsing, all commands, replies. The sets are real, the mesh and the disk under them are not. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "node/base/limits.h"
#include "node/gateway/command.h"
#include "tests/unit/gateway/disk.h"
#include "tests/unit/gateway/fake.h"

#define COMMANDS_MAX 200
#define PIECE_BYTES 7 /* the input comes in pieces of 1 to 7 bytes, as its first byte says */

struct target {
    struct fake_mesh mesh;
    struct disk disk;
    struct command_house house;
    struct session session;
    struct buf out;
};

static uint64_t wall(void *ctx)
{
    return ((struct target *)ctx)->mesh.wall_ms++;
}

static void on_ready(void *ctx)
{
    (void)ctx;
}

static void on_committed(void *ctx, int status, const struct err *err)
{
    (void)ctx, (void)status, (void)err;
}

static void push(struct subscriber *subscriber, const void *bytes, size_t len_bytes)
{
    (void)subscriber, (void)bytes, (void)len_bytes;
}

static void each_session(void *ctx, session_cb cb, void *cb_ctx)
{
    cb(cb_ctx, &((struct target *)ctx)->session);
}

static struct target *target_new(void)
{
    struct err err;
    struct target *target = calloc(1, sizeof *target);
    assert(target);
    fake_mesh_init(&target->mesh);
    struct sets_config sets = {.mesh = fake_sets_mesh(&target->mesh),
                               .disk = disk_of(&target->disk),
                               .jobs = disk_jobs(&target->disk),
                               .clock = {wall, wall, target},
                               .ready = on_ready,
                               .committed = on_committed,
                               .ctx = target};
    struct channels_mesh channels = fake_channels_mesh(&target->mesh);
    int status = sets_new(&sets, &target->house.sets, &err);
    assert(status == 0);
    status = channels_new(&channels, 1, &target->house.channels, &err);
    assert(status == 0);
    (void)status;
    target->house.each_session = each_session;
    target->house.ctx = target;
    buf_init(&target->out, LIMIT_RESP_OUT_BYTES);
    subscriber_init(&target->session.subscriber, push);
    return target;
}

static void target_free(struct target *target)
{
    const void *name;
    size_t len;
    while (channels_first_of(&target->session.subscriber, &name, &len)) {
        char copy[LIMIT_SET_NAME_BYTES];
        memcpy(copy, name, len);
        channels_unsubscribe(target->house.channels, &target->session.subscriber, copy, len);
    }
    sets_close(target->house.sets);
    while (disk_run(&target->disk))
        continue;
    sets_free(target->house.sets);
    channels_free(target->house.channels);
    fake_mesh_release(&target->mesh);
    for (size_t i = 0; i < target->disk.count; i++)
        free(target->disk.rows[i].value);
    buf_release(&target->out);
    free(target);
}

/* A command is answered, with something that is a reply; or waits for sets, and is answered when they are there. */
static void run(struct target *target, const struct resp_command *request)
{
    buf_clear(&target->out);
    if (command_run(&target->house, &target->session, request, &target->out) == COMMAND_WAIT) {
        assert(target->out.len == 0);
        fake_mesh_run(&target->mesh);
        enum command_result result = command_run(&target->house, &target->session, request, &target->out);
        assert(result == COMMAND_DONE);
        (void)result;
    }
    assert(target->out.failed || target->out.len >= 4);
    assert(target->out.failed || memcmp(target->out.data + target->out.len - 2, "\r\n", 2) == 0);
    assert(target->out.failed || strchr("+-:$*", target->out.data[0]));
    sets_commit(target->house.sets);
    disk_run(&target->disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct resp_reader *reader = NULL;
    struct resp_command request;
    struct err err;
    if (size == 0 || resp_reader_new(&reader, &err) < 0)
        return 0;
    struct target *target = target_new();
    size_t piece = 1 + data[0] % PIECE_BYTES;
    unsigned commands_run = 0;
    for (size_t at = 1; at < size && commands_run < COMMANDS_MAX; at += piece) {
        resp_feed(reader, data + at, size - at < piece ? size - at : piece, &err);
        while (resp_next(reader, &request, &err) == 1 && commands_run++ < COMMANDS_MAX)
            run(target, &request);
    }
    target_free(target);
    resp_reader_free(reader);
    return 0;
}
