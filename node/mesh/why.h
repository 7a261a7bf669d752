/*
 * Why: who could give something, and who would be asked first by a policy, with all the numbers that decide it.
 *
 * Reads the DHT and what was measured; fetches nothing. docs/api.md says what the answer holds.
 */
#pragma once

#include <jansson.h>
#include <sys/queue.h>

#include "node/mesh/providers.h"

struct why_question;
TAILQ_HEAD(why_questions, why_question);

/* The questions under way. */
struct whys {
    const struct content *content; /* borrowed */
    struct mesh *mesh;             /* borrowed; set before the first question */
    struct why_questions open;
};

void whys_init(struct whys *whys, const struct content *content);
/* The callback comes once, from inside when the DHT cannot be asked; `reply` is the callback's to decref. The key's
 * text is borrowed for the call. */
void whys_ask(struct whys *whys, uint64_t now_ms, const char *text, const struct provider_key *key,
              const struct policy *policy, content_why_cb done, void *ctx);
/* Answer what is owed, with what is known: nothing. */
void whys_close(struct whys *whys);
