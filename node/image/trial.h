/*
 * Can a layer's compressed blob be made again of its plain tar? Found out by making it. Inside image only.
 *
 * Each encoder that the blob's first bytes allow is tried on the layer's first bytes, and if it fits there on all of
 * it, until one gives every byte of the blob. Takes at most IMAGE_TRIAL_MS of CPU time and 1 ms for each
 * IMAGE_TRIAL_BYTES_PER_MS of tar: longer than reading the blob took, since compressing takes longer.
 */
#pragma once

#include "node/image/import.h"

#define IMAGE_TRIAL_MS 2000
#define IMAGE_TRIAL_BYTES_PER_MS (4u << 10)

struct image_trial {
    const struct image_import *import; /* borrowed */
    struct image_layer layer;          /* in the store */
    int blob_fd;                       /* borrowed; a regular file */
    struct image_part blob;            /* the digest that the blob is said to have, and its size */
};

/* 1 and the packing; 0 if none was found, or not in time. 1 says too that the blob has its digest. ERR_CANCELLED. */
int image_trial_run(const struct image_trial *trial, struct image_packing *ret_packing, struct err *err);
