/* One message of an exchange from hostile bytes: the type, then the rest. What decodes must encode to the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "transfer/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message message;
    if (size == 0 || transfer_message_decode(data[0], data + 1, size - 1, &message, NULL) < 0)
        return 0;
    uint8_t head[MESSAGE_HEAD_BYTES];
    size_t head_bytes = transfer_message_encode(&message, head);
    size_t list_bytes = message.n_items * transfer_message_item_bytes(message.type);
    if (head_bytes + list_bytes != size - 1 || memcmp(head, data + 1, head_bytes) != 0)
        abort();
    if (list_bytes > 0 && memcmp(message.items, data + 1 + head_bytes, list_bytes) != 0)
        abort();
    return 0;
}
