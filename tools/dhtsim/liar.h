/*
 * Liars: nodes that ask like everybody, and answer to their own ends. To whoever looks for a key they name only other
 * liars, those nearest to it, and give a record that its member never signed; what is handed to them to keep they
 * acknowledge and throw away.
 */
#pragma once

#include <stdbool.h>

#include <stddef.h>
#include <stdint.h>

struct node;
struct world;

/* Make so many percent of the nodes liars, before they start. */
void liar_choose(struct world *world, uint64_t percent);
/* A packet for a liar: true if it was answered with a lie, false if the node is to see it as it is. */
bool liar_answers(struct world *world, struct node *liar, const struct node *from, const uint8_t *bytes,
                  size_t len_bytes);
