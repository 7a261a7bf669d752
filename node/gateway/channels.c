#include "node/gateway/channels.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/gateway/names.h"
#include "node/gateway/resp.h"

struct subscription {
    struct channel *channel;
    struct subscriber *subscriber;
    TAILQ_ENTRY(subscription)
    of_channel;
    TAILQ_ENTRY(subscription)
    of_subscriber;
};

struct channel {
    struct name name;
    void *handle; /* the mesh's; NULL: it could not listen, and the channel is local */
    TAILQ_HEAD(, subscription) subscriptions;
    size_t count;
    char bytes[];
};

struct channels {
    struct channels_mesh mesh;
    struct names names; /* owns the channels */
    size_t subscriptions;
};

void subscriber_init(struct subscriber *subscriber,
                     void (*push)(struct subscriber *subscriber, const void *bytes, size_t len_bytes))
{
    *subscriber = (struct subscriber){.push = push};
    TAILQ_INIT(&subscriber->subscriptions);
}

int channels_new(const struct channels_mesh *mesh, uint64_t seed, struct channels **ret_channels, struct err *err)
{
    struct channels *channels = calloc(1, sizeof *channels);
    if (!channels)
        return err_set(err, ERR_NOMEM, "no memory for channels");
    channels->mesh = *mesh;
    names_init(&channels->names, seed);
    *ret_channels = channels;
    return 0;
}

void channels_free(struct channels *channels)
{
    if (!channels)
        return;
    names_release(&channels->names);
    free(channels);
}

static struct channel *find(const struct channels *channels, const void *name, size_t name_len)
{
    struct name *found = names_find(&channels->names, name, name_len);
    return found ? (struct channel *)((char *)found - offsetof(struct channel, name)) : NULL;
}

static struct subscription *find_subscription(const struct channel *channel, const struct subscriber *subscriber)
{
    /* Clients subscribe to few channels, and channels may have many subscribers. */
    struct subscription *subscription;
    TAILQ_FOREACH (subscription, &subscriber->subscriptions, of_subscriber) {
        if (subscription->channel == channel)
            return subscription;
    }
    return NULL;
}

static struct channel *make_channel(struct channels *channels, const void *name, size_t name_len)
{
    struct channel *channel = calloc(1, sizeof *channel + name_len + 1);
    if (!channel)
        return NULL;
    memcpy(channel->bytes, name, name_len);
    channel->name = (struct name){.bytes = channel->bytes, .len = (uint32_t)name_len};
    TAILQ_INIT(&channel->subscriptions);
    if (names_add(&channels->names, &channel->name) < 0) {
        free(channel);
        return NULL;
    }
    struct err err;
    if (channels->mesh.listen(channels->mesh.ctx, channels, channel, name, name_len, &channel->handle, &err) < 0)
        log_warn("registry", "messages of other nodes will not come why=\"%s\"", err.text);
    return channel;
}

static void drop_if_unused(struct channels *channels, struct channel *channel)
{
    if (channel->count > 0)
        return;
    if (channel->handle)
        channels->mesh.ignore(channels->mesh.ctx, channel->handle);
    names_remove(&channels->names, &channel->name);
    free(channel);
}

int channels_subscribe(struct channels *channels, struct subscriber *subscriber, const void *name, size_t name_len,
                       struct err *err)
{
    struct channel *channel = find(channels, name, name_len);
    if (channel && find_subscription(channel, subscriber))
        return 0;
    if (channels->subscriptions >= LIMIT_RESP_SUBSCRIPTIONS ||
        (!channel && channels->names.count >= LIMIT_RESP_CHANNELS))
        return err_set(err, ERR_LIMIT, "too many subscriptions");
    OWNED(owned_free) struct subscription *subscription = calloc(1, sizeof *subscription);
    if (subscription && !channel)
        channel = make_channel(channels, name, name_len);
    if (!subscription || !channel)
        return err_set(err, ERR_NOMEM, "out of memory");
    subscription->channel = channel;
    subscription->subscriber = subscriber;
    TAILQ_INSERT_TAIL(&channel->subscriptions, subscription, of_channel);
    TAILQ_INSERT_TAIL(&subscriber->subscriptions, subscription, of_subscriber);
    channel->count++;
    subscriber->count++;
    channels->subscriptions++;
    STEAL(subscription);
    return 0;
}

int channels_unsubscribe(struct channels *channels, struct subscriber *subscriber, const void *name, size_t name_len)
{
    struct channel *channel = find(channels, name, name_len);
    struct subscription *subscription = channel ? find_subscription(channel, subscriber) : NULL;
    if (!subscription)
        return 0;
    TAILQ_REMOVE(&channel->subscriptions, subscription, of_channel);
    TAILQ_REMOVE(&subscriber->subscriptions, subscription, of_subscriber);
    free(subscription);
    channel->count--;
    subscriber->count--;
    channels->subscriptions--;
    drop_if_unused(channels, channel);
    return 1;
}

bool channels_first_of(const struct subscriber *subscriber, const void **ret_name, size_t *ret_len)
{
    const struct subscription *first = TAILQ_FIRST(&subscriber->subscriptions);
    if (!first)
        return false;
    *ret_name = first->channel->name.bytes;
    *ret_len = first->channel->name.len;
    return true;
}

void channels_deliver(struct channels *channels, struct channel *channel, const void *message, size_t len_bytes)
{
    (void)channels;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_RESP_ARG_BYTES + 4096);
    resp_put_array(&bytes, 3);
    resp_put_text(&bytes, "message");
    resp_put_bulk(&bytes, channel->name.bytes, channel->name.len);
    resp_put_bulk(&bytes, message, len_bytes);
    if (bytes.failed)
        return;
    struct subscription *subscription;
    TAILQ_FOREACH (subscription, &channel->subscriptions, of_channel) {
        subscription->subscriber->push(subscription->subscriber, bytes.data, bytes.len);
    }
}

int channels_publish(struct channels *channels, const void *name, size_t name_len, const void *message,
                     size_t len_bytes, size_t *ret_receivers, struct err *err)
{
    int status = channels->mesh.publish(channels->mesh.ctx, name, name_len, message, len_bytes, err);
    if (status < 0)
        return status;
    struct channel *channel = find(channels, name, name_len);
    *ret_receivers = channel ? channel->count : 0;
    if (channel)
        channels_deliver(channels, channel, message, len_bytes);
    return 0;
}

size_t channels_count(const struct channels *channels)
{
    return channels->names.count;
}
