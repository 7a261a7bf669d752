/*
 * The DHT's log on this node: what it holds in memory is in the store's tables "dht-records" and "dht-blobs" too, for
 * the next start. Changes wait here, of each row the latest, until a group of them is written.
 *
 * One thread, the loop's; the disk is written by jobs.
 */
#pragma once

#include "dht/dht.h"
#include "node/base/jobs.h"
#include "store/store.h"

struct records;

/* Store and jobs outlive the records. */
int records_new(struct store *store, struct jobs jobs, struct records **ret_records, struct err *err);
/* What the DHT is given; valid as long as the records. */
struct dht_storage records_storage(struct records *records);
/* Begin to write what has changed, unless a write is under way; to be called about twice a second. What could not be
 * written, because the disk is full, say, is tried again later. */
void records_flush(struct records *records);
/* Write what is left, now and after the write under way, once. */
void records_close(struct records *records);
/* No job is under way, and nothing is left that will be written. */
bool records_clean(const struct records *records);
void records_free(struct records *records);
