/*
 * A frame as a tun device with offloads hands it over: a virtio_net_hdr, and an IPv4 packet or a TCP segment of up to
 * 64 KiB that the kernel has left for a network card to cut into packets. It is only cut here where its packets meet
 * different fates; what is counted and charged are always the packets that a wire would have carried.
 *
 * Formats: linux/virtio_net.h, RFC 791, RFC 9293. Owns nothing, allocates nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX (65535 + 10) /* an IPv4 packet of the greatest length behind its virtio_net_hdr */

struct frame_shape {
    uint32_t source; /* IPv4, host byte order */
    uint32_t target;
    uint32_t packets;    /* that a card would make of it, at least 1 */
    uint32_t header;     /* bytes of the IP and TCP headers, which each of the packets has */
    uint32_t full_bytes; /* of each packet but the last, headers included */
    uint32_t last_bytes;
};

/* False for what is no IPv4 packet, or not whole: the lab carries nothing else. */
bool frame_look(const uint8_t *frame, size_t len_bytes, struct frame_shape *ret_shape);

/* Bytes on a wire of `count` packets from number `first` on. */
uint32_t frame_wire_bytes(const struct frame_shape *shape, uint32_t first, uint32_t count);

/* Make a frame of `count` packets from number `first` on, fewer than all; `ret_frame` has room for FRAME_MAX bytes.
 * Returns its length. */
size_t frame_cut(const uint8_t *frame, const struct frame_shape *shape, uint32_t first, uint32_t count,
                 uint8_t *ret_frame);
