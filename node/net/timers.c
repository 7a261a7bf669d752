#include "node/net/timers.h"

#include <stdlib.h>
#include <sys/queue.h>

struct timer {
    TAILQ_ENTRY(timer)
    entry;
    uv_timer_t handle;
    struct timers *owner;
    void (*cb)(void *ctx);
    void *ctx;
};

TAILQ_HEAD(timer_list, timer);

struct timers {
    uv_loop_t *loop; /* borrowed */
    bool closing;
    struct timer_list list;
};

int timers_new(uv_loop_t *loop, struct timers **ret_timers, struct err *err)
{
    struct timers *timers = calloc(1, sizeof *timers);
    if (!timers)
        return err_set(err, ERR_NOMEM, "no memory for timers");
    timers->loop = loop;
    TAILQ_INIT(&timers->list);
    *ret_timers = timers;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct timer *timer = handle->data;
    TAILQ_REMOVE(&timer->owner->list, timer, entry);
    free(timer);
}

static void on_timer(uv_timer_t *handle)
{
    struct timer *timer = handle->data;
    if (timer->owner->closing)
        return;
    uv_close((uv_handle_t *)handle, on_closed);
    timer->cb(timer->ctx);
}

void timers_after(struct timers *timers, uint64_t delay_ms, void (*cb)(void *ctx), void *ctx)
{
    if (timers->closing)
        return;
    struct timer *timer = malloc(sizeof *timer);
    if (!timer)
        abort();
    timer->owner = timers;
    timer->cb = cb;
    timer->ctx = ctx;
    timer->handle.data = timer;
    TAILQ_INSERT_TAIL(&timers->list, timer, entry);
    uv_timer_init(timers->loop, &timer->handle);
    uv_timer_start(&timer->handle, on_timer, delay_ms, 0);
}

void timers_close(struct timers *timers)
{
    timers->closing = true;
    struct timer *timer;
    TAILQ_FOREACH (timer, &timers->list, entry) {
        if (!uv_is_closing((uv_handle_t *)&timer->handle))
            uv_close((uv_handle_t *)&timer->handle, on_closed);
    }
}

bool timers_closed(const struct timers *timers)
{
    return timers->closing && TAILQ_EMPTY(&timers->list);
}

void timers_free(struct timers *timers)
{
    free(timers);
}
