/* Invitations that people paste: what is accepted has one spelling. The input is PEER, or PEER newline TOKEN. */
#include <stdlib.h>
#include <string.h>

#include "node/identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWNED(owned_free) char *text = strndup((const char *)data, size);
    if (!text)
        return 0;
    struct invitation invitation;
    struct err err;
    char again[INVITATION_TEXT_SIZE];
    if (invitation_parse(text, &invitation, &err) == 0 && strcmp(invitation_text(&invitation, again), text) != 0)
        abort();
    char *token = strchr(text, '\n');
    if (token)
        *token++ = '\0';
    struct invitation back;
    if (invitation_find(text, token, &invitation, &err) == 0) {
        invitation_text(&invitation, again);
        if (invitation_parse(again, &back, &err) < 0 || memcmp(back.secret, invitation.secret, sizeof back.secret) != 0)
            abort();
    }
    return 0;
}
