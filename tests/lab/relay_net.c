#include "tests/lab/relay_net.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "node/base/scope.h"
#include "tests/lab/relay_frame.h"

#define NS_PER_S 1000000000u
#define DEFAULT_QUEUE_NS 50000000u
#define DEFAULT_LATE_NS 2000000u
#define LATE_NS 300000u

/* A frame on its way: first to the downlink, then through it. `due_ns` is when its first packet is there, or, in
 * the downlink, its last one. */
struct flight {
    uint64_t due_ns;
    uint64_t order;   /* of equal times, first come, first out */
    uint64_t span_ns; /* from its first to its last packet, as the uplink let them out */
    struct frame_shape shape;
    unsigned from, to;
    bool in_downlink;
    uint32_t len_bytes;
    uint8_t frame[];
};

struct net {
    struct net_node nodes[NET_NODES];
    unsigned node_count;
    struct net_path paths[NET_NODES][NET_NODES];
    struct flight **heap; /* owned, and what it points to; the earliest first */
    size_t heap_len, heap_cap;
    uint64_t order;
    uint64_t flying_bytes;
    struct net_lateness lateness;
    uint64_t rng_state;
    struct rng rng;
    net_deliver_cb cb;
    void *ctx; /* borrowed */
    uint8_t part[FRAME_MAX];
};

/* ---- the heap of what is on its way ---- */

static bool is_before(const struct flight *a, const struct flight *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static bool heap_has_room(struct net *net)
{
    if (net->heap_len < net->heap_cap)
        return true;
    size_t cap = net->heap_cap ? net->heap_cap * 2 : 1024;
    struct flight **heap = realloc(net->heap, cap * sizeof *heap);
    if (!heap)
        return false;
    net->heap = heap;
    net->heap_cap = cap;
    return true;
}

static void heap_push(struct net *net, struct flight *flight)
{
    flight->order = net->order++;
    size_t at = net->heap_len++;
    while (at > 0 && is_before(flight, net->heap[(at - 1) / 2])) {
        net->heap[at] = net->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    net->heap[at] = flight;
}

static struct flight *heap_pop(struct net *net)
{
    struct flight *top = net->heap[0], *moved = net->heap[--net->heap_len];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= net->heap_len)
            break;
        if (child + 1 < net->heap_len && is_before(net->heap[child + 1], net->heap[child]))
            child++;
        if (!is_before(net->heap[child], moved))
            break;
        net->heap[at] = net->heap[child];
        at = child;
    }
    net->heap[at] = moved;
    return top;
}

/* ---- nodes ---- */

struct net *net_new(uint64_t seed, net_deliver_cb cb, void *ctx)
{
    struct net *net = calloc(1, sizeof *net);
    if (!net)
        return NULL;
    net->rng_state = seed;
    net->rng = rng_seeded(&net->rng_state);
    net->cb = cb;
    net->ctx = ctx;
    return net;
}

void net_free(struct net *net)
{
    if (!net)
        return;
    for (size_t i = 0; i < net->heap_len; i++)
        free(net->heap[i]);
    free(net->heap);
    free(net);
}

int net_add_node(struct net *net, const char *name, uint32_t address, struct err *err)
{
    if (!*name || strlen(name) >= NET_NAME_SIZE || strcmp(name, "all") == 0)
        return err_set(err, ERR_INVALID, "'%s' is no name for a node", name);
    if (net->node_count == NET_NODES)
        return err_set(err, ERR_LIMIT, "there are %u nodes already", net->node_count);
    for (unsigned i = 0; i < net->node_count; i++)
        if (strcmp(net->nodes[i].name, name) == 0 || net->nodes[i].address == address)
            return err_set(err, ERR_EXISTS, "there is a node '%s' already", net->nodes[i].name);
    struct net_node *node = &net->nodes[net->node_count];
    strcpy(node->name, name);
    node->address = address;
    node->up.queue_ns = node->down.queue_ns = DEFAULT_QUEUE_NS;
    for (unsigned i = 0; i <= net->node_count; i++)
        net->paths[i][net->node_count].late_ns = net->paths[net->node_count][i].late_ns = DEFAULT_LATE_NS;
    return (int)net->node_count++;
}

unsigned net_node_count(const struct net *net)
{
    return net->node_count;
}

int net_find_node(const struct net *net, const char *name)
{
    for (unsigned i = 0; i < net->node_count; i++)
        if (strcmp(net->nodes[i].name, name) == 0)
            return (int)i;
    return -1;
}

struct net_node *net_node(struct net *net, unsigned node)
{
    return &net->nodes[node];
}

struct net_path *net_path(struct net *net, unsigned from, unsigned to)
{
    return &net->paths[from][to];
}

const struct net_lateness *net_lateness(const struct net *net)
{
    return &net->lateness;
}

void net_zero_counters(struct net *net)
{
    net->lateness = (struct net_lateness){0};
    for (unsigned i = 0; i < net->node_count; i++) {
        net->nodes[i].up.dropped_packets = net->nodes[i].down.dropped_packets = 0;
        for (unsigned j = 0; j < net->node_count; j++) {
            struct net_path *path = &net->paths[i][j];
            path->sent_bytes = path->sent_packets = path->received_bytes = path->received_packets = 0;
            path->lost_packets = 0;
        }
    }
}

/* ---- links ---- */

static uint64_t time_of(const struct net_link *link, uint64_t bytes)
{
    return link->rate_bits_per_s ? (uint64_t)((unsigned __int128)bytes * 8 * NS_PER_S / link->rate_bits_per_s) : 0;
}

static uint64_t bytes_in(const struct net_link *link, uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * link->rate_bits_per_s / 8 / NS_PER_S);
}

/* How many packets of a frame the queue takes at `now_ns`, from the first on; at least one if nothing waits. */
static uint32_t link_room(struct net_link *link, const struct frame_shape *shape, uint64_t now_ns)
{
    if (link->rate_bits_per_s == 0)
        return shape->packets;
    uint64_t waiting = link->free_ns > now_ns ? bytes_in(link, link->free_ns - now_ns) : 0;
    uint64_t limit = link->queue_bytes ? link->queue_bytes : bytes_in(link, link->queue_ns);
    uint64_t room = limit > waiting ? limit - waiting : 0;
    uint32_t count = shape->packets;
    if (room < frame_wire_bytes(shape, 0, count))
        count = (uint32_t)(shape->packets > 1 ? room / shape->full_bytes : 0);
    if (count == 0 && waiting == 0)
        count = 1;
    link->dropped_packets += shape->packets - count;
    return count;
}

/* ---- the way of a frame ---- */

static struct frame_shape shape_of_part(const struct frame_shape *shape, uint32_t first, uint32_t count)
{
    struct frame_shape part = *shape;
    part.packets = count;
    part.last_bytes = first + count == shape->packets ? shape->last_bytes : shape->full_bytes;
    return part;
}

/* A flight with packets of a frame; NULL without memory or beyond NET_FLYING_BYTES. Not on its way yet. */
static struct flight *flight_new(struct net *net, const uint8_t *frame, size_t len_bytes,
                                 const struct frame_shape *shape, uint32_t first, uint32_t count)
{
    if (count < shape->packets) {
        len_bytes = frame_cut(frame, shape, first, count, net->part);
        frame = net->part;
    }
    if (net->flying_bytes + len_bytes > NET_FLYING_BYTES || !heap_has_room(net))
        return NULL;
    struct flight *flight = malloc(sizeof *flight + len_bytes);
    if (!flight)
        return NULL;
    *flight = (struct flight){.len_bytes = (uint32_t)len_bytes, .shape = shape_of_part(shape, first, count)};
    memcpy(flight->frame, frame, len_bytes);
    net->flying_bytes += len_bytes;
    return flight;
}

static void flight_end(struct net *net, struct flight *flight)
{
    net->flying_bytes -= flight->len_bytes;
    free(flight);
}

enum fate { FATE_PASSES, FATE_LATE, FATE_LOST };

static bool chance(struct net *net, double share)
{
    return share > 0 && (double)(rng_u64(&net->rng) >> 11) * 0x1p-53 < share;
}

static enum fate draw_fate(struct net *net, const struct net_path *path)
{
    if (path->cut || chance(net, path->loss))
        return FATE_LOST;
    return chance(net, path->reorder) ? FATE_LATE : FATE_PASSES;
}

/* When packets that have left the uplink at `out_ns` are at the other end. */
static uint64_t path_end(struct net *net, struct net_path *path, enum fate fate, uint64_t out_ns)
{
    uint64_t at_ns = out_ns + path->delay_ns;
    if (path->jitter_ns)
        at_ns += rng_below(&net->rng, path->jitter_ns);
    if (fate == FATE_LATE)
        return at_ns + path->late_ns;
    if (at_ns < path->last_ns)
        at_ns = path->last_ns;
    path->last_ns = at_ns;
    return at_ns;
}

/* A frame at the uplink; its first bit enters the wire at start_ns. */
struct sending {
    unsigned from, to;
    const uint8_t *frame;
    size_t len_bytes;
    struct frame_shape shape;
    uint64_t start_ns;
};

static void send_part(struct net *net, const struct sending *sending, uint32_t first, uint32_t count, enum fate fate)
{
    struct net_path *path = &net->paths[sending->from][sending->to];
    const struct net_link *up = &net->nodes[sending->from].up;
    const struct frame_shape *shape = &sending->shape;
    path->sent_bytes += frame_wire_bytes(shape, first, count);
    path->sent_packets += count;
    struct flight *flight =
        fate == FATE_LOST ? NULL : flight_new(net, sending->frame, sending->len_bytes, shape, first, count);
    if (!flight) {
        path->lost_packets += count;
        return;
    }
    uint64_t first_out_ns = sending->start_ns + time_of(up, frame_wire_bytes(shape, 0, first + 1));
    uint64_t last_out_ns = sending->start_ns + time_of(up, frame_wire_bytes(shape, 0, first + count));
    flight->from = sending->from;
    flight->to = sending->to;
    flight->span_ns = last_out_ns - first_out_ns;
    flight->due_ns = path_end(net, path, fate, first_out_ns);
    heap_push(net, flight);
}

/* Each packet draws its fate; those in a row that fare alike go on as one. */
static void send_packets(struct net *net, const struct sending *sending, uint32_t packets)
{
    const struct net_path *path = &net->paths[sending->from][sending->to];
    enum fate fate = draw_fate(net, path), following = fate;
    for (uint32_t first = 0, next; first < packets; first = next, fate = following) {
        for (next = first + 1; next < packets; next++) {
            following = draw_fate(net, path);
            if (following != fate)
                break;
        }
        send_part(net, sending, first, next - first, fate);
    }
}

void net_send(struct net *net, unsigned from, const uint8_t *frame, size_t len_bytes, uint64_t now_ns)
{
    struct sending sending = {.from = from, .frame = frame, .len_bytes = len_bytes};
    if (!frame_look(frame, len_bytes, &sending.shape))
        return;
    while (sending.to < net->node_count && net->nodes[sending.to].address != sending.shape.target)
        sending.to++;
    if (sending.to == net->node_count)
        return;
    struct net_link *up = &net->nodes[from].up;
    uint32_t entered = link_room(up, &sending.shape, now_ns);
    if (entered == 0)
        return;
    sending.start_ns = up->free_ns > now_ns ? up->free_ns : now_ns;
    up->free_ns = sending.start_ns + time_of(up, frame_wire_bytes(&sending.shape, 0, entered));
    send_packets(net, &sending, entered);
}

/* At the downlink: wait for what is before it, and until the last packet has come and gone through. */
static void enter_downlink(struct net *net, struct flight *flight)
{
    struct net_link *down = &net->nodes[flight->to].down;
    struct flight *whole = flight;
    uint32_t entered = link_room(down, &flight->shape, flight->due_ns);
    if (entered > 0 && entered < flight->shape.packets)
        flight = flight_new(net, whole->frame, whole->len_bytes, &whole->shape, 0, entered);
    else if (entered == 0)
        flight = NULL;
    if (flight) {
        uint64_t start_ns = down->free_ns > whole->due_ns ? down->free_ns : whole->due_ns;
        uint64_t through_ns = start_ns + time_of(down, frame_wire_bytes(&flight->shape, 0, entered));
        uint64_t last_in_ns = whole->due_ns + whole->span_ns + time_of(down, flight->shape.last_bytes);
        flight->from = whole->from;
        flight->to = whole->to;
        flight->in_downlink = true;
        flight->due_ns = through_ns > last_in_ns ? through_ns : last_in_ns;
        down->free_ns = through_ns;
        heap_push(net, flight);
    }
    if (flight != whole)
        flight_end(net, whole);
}

static void arrive(struct net *net, struct flight *flight, uint64_t now_ns)
{
    struct net_path *path = &net->paths[flight->from][flight->to];
    struct net_lateness *lateness = &net->lateness;
    uint64_t late_ns = now_ns - flight->due_ns;
    lateness->frames++;
    lateness->sum_ns += late_ns;
    lateness->late_frames += late_ns > LATE_NS;
    if (late_ns > lateness->max_ns)
        lateness->max_ns = late_ns;
    if (path->cut) {
        path->lost_packets += flight->shape.packets;
    } else {
        path->received_bytes += frame_wire_bytes(&flight->shape, 0, flight->shape.packets);
        path->received_packets += flight->shape.packets;
        net->cb(net->ctx, flight->to, flight->frame, flight->len_bytes);
    }
    flight_end(net, flight);
}

uint64_t net_run(struct net *net, uint64_t now_ns)
{
    while (net->heap_len > 0 && net->heap[0]->due_ns <= now_ns) {
        struct flight *flight = heap_pop(net);
        if (flight->in_downlink)
            arrive(net, flight, now_ns);
        else
            enter_downlink(net, flight);
    }
    return net->heap_len > 0 ? net->heap[0]->due_ns : NET_NEVER;
}
