/* Runs a fuzz harness over every file of its corpus, for compilers without libFuzzer and for every test run. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    struct err err = {0};
    OWNED(buf_release) struct buf content = BUF(64u << 20);
    if (file_read(path, &content, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    static const uint8_t nothing[1];
    LLVMFuzzerTestOneInput(content.data ? content.data : nothing, content.len);
    return 0;
}

int main(int argc, char **argv)
{
    const char *folder = argv[argc - 1];
    DIR *dir = opendir(folder);
    if (!dir) {
        fprintf(stderr, "no corpus at '%s'\n", folder);
        return 1;
    }
    int failed = 0;
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        OWNED(owned_free) char *path = file_path("%s/%s", folder, entry->d_name);
        failed |= path ? replay_file(path) : 1;
        count++;
    }
    closedir(dir);
    printf("%u inputs replayed\n", count);
    return failed || count == 0;
}
