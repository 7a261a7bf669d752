#include "tests/lab/relay_frame.h"

#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

#define VIRTIO_BYTES sizeof(struct virtio_net_hdr)

_Static_assert(VIRTIO_BYTES == 10, "the header that a tun device has in front of packets by default");

/* The one's complement sum of RFC 1071, folded but not inverted; len_bytes is even. */
static uint16_t sum_of(const uint8_t *data, size_t len_bytes, uint32_t sum)
{
    for (size_t i = 0; i < len_bytes; i += 2)
        sum += (uint32_t)(data[i] << 8 | data[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static bool look_at_segments(const struct virtio_net_hdr *virtio, const uint8_t *packet, uint32_t ip_header,
                             uint32_t total, struct frame_shape *shape)
{
    struct tcphdr tcp;
    if ((virtio->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) != VIRTIO_NET_HDR_GSO_TCPV4 || total < ip_header + sizeof tcp)
        return false;
    memcpy(&tcp, packet + ip_header, sizeof tcp);
    shape->header = ip_header + tcp.doff * 4u;
    if (virtio->gso_size == 0 || total <= shape->header)
        return false;
    uint32_t payload = total - shape->header;
    shape->packets = (payload + virtio->gso_size - 1) / virtio->gso_size;
    shape->full_bytes = shape->header + virtio->gso_size;
    shape->last_bytes = total - (shape->packets - 1) * virtio->gso_size;
    return true;
}

bool frame_look(const uint8_t *frame, size_t len_bytes, struct frame_shape *ret_shape)
{
    struct virtio_net_hdr virtio;
    struct iphdr ip;
    if (len_bytes < VIRTIO_BYTES + sizeof ip || len_bytes > FRAME_MAX)
        return false;
    memcpy(&virtio, frame, sizeof virtio);
    memcpy(&ip, frame + VIRTIO_BYTES, sizeof ip);
    uint32_t total = (uint32_t)(len_bytes - VIRTIO_BYTES);
    uint32_t ip_header = ip.ihl * 4u;
    if (ip.version != 4 || ip_header < sizeof ip || ip_header > total || ntohs(ip.tot_len) != total)
        return false;
    struct frame_shape shape = {
        .source = ntohl(ip.saddr), .target = ntohl(ip.daddr), .packets = 1, .last_bytes = total};
    if (virtio.gso_type != VIRTIO_NET_HDR_GSO_NONE &&
        !look_at_segments(&virtio, frame + VIRTIO_BYTES, ip_header, total, &shape))
        return false;
    *ret_shape = shape;
    return true;
}

uint32_t frame_wire_bytes(const struct frame_shape *shape, uint32_t first, uint32_t count)
{
    if (count == 0)
        return 0;
    return (count - 1) * shape->full_bytes + (first + count == shape->packets ? shape->last_bytes : shape->full_bytes);
}

/* The headers of a part, as a card that cuts segments writes them; of the TCP checksum only the pseudo-header's share,
 * because the kernel that takes the frame counts it as one whose rest a card would have added. */
static void write_headers(uint8_t *packet, uint32_t total, uint32_t offset_bytes, uint32_t number, bool last)
{
    struct iphdr ip;
    memcpy(&ip, packet, sizeof ip);
    uint32_t ip_header = ip.ihl * 4u;
    ip.tot_len = htons((uint16_t)total);
    ip.id = htons((uint16_t)(ntohs(ip.id) + number));
    ip.check = 0;
    memcpy(packet, &ip, sizeof ip);
    ip.check = htons((uint16_t)~sum_of(packet, ip_header, 0));
    memcpy(packet, &ip, sizeof ip);

    struct tcphdr tcp;
    memcpy(&tcp, packet + ip_header, sizeof tcp);
    tcp.seq = htonl(ntohl(tcp.seq) + offset_bytes);
    if (!last)
        tcp.fin = tcp.psh = 0;
    if (number)
        tcp.res2 &= 1; /* CWR, the upper of the two bits, is said once; ECE is said by each */
    tcp.check = htons(sum_of(packet + offsetof(struct iphdr, saddr), 8, IPPROTO_TCP + total - ip_header));
    memcpy(packet + ip_header, &tcp, sizeof tcp);
}

size_t frame_cut(const uint8_t *frame, const struct frame_shape *shape, uint32_t first, uint32_t count,
                 uint8_t *ret_frame)
{
    uint32_t payload = frame_wire_bytes(shape, first, count) - count * shape->header;
    uint32_t offset = first * (shape->full_bytes - shape->header);
    struct virtio_net_hdr virtio;
    memcpy(&virtio, frame, sizeof virtio);
    if (count == 1) {
        virtio.gso_type = VIRTIO_NET_HDR_GSO_NONE;
        virtio.gso_size = 0;
    }
    memcpy(ret_frame, &virtio, sizeof virtio);
    uint8_t *packet = ret_frame + VIRTIO_BYTES;
    memcpy(packet, frame + VIRTIO_BYTES, shape->header);
    memcpy(packet + shape->header, frame + VIRTIO_BYTES + shape->header + offset, payload);
    write_headers(packet, shape->header + payload, offset, first, first + count == shape->packets);
    return VIRTIO_BYTES + shape->header + payload;
}
