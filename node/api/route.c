#include "node/api/route.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/id.h"

void api_target_release(struct api_target *target)
{
    free(target->text);
    *target = (struct api_target){0};
}

/* Decode in place: the text only gets shorter. */
static bool decode(char *text, bool plus_is_space)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        uint8_t byte = (uint8_t)*from;
        if (*from == '%') {
            char digits[2] = {from[1], from[1] ? from[2] : '\0'};
            for (size_t i = 0; i < 2; i++) {
                if (digits[i] >= 'A' && digits[i] <= 'F')
                    digits[i] = (char)(digits[i] - 'A' + 'a');
            }
            if (!hex_decode(digits, 2, &byte, 1) || byte == 0)
                return false;
            from += 2;
        } else if (*from == '+' && plus_is_space) {
            byte = ' ';
        }
        *to++ = (char)byte;
    }
    *to = '\0';
    return true;
}

static int parse_segments(char *path, struct api_target *target, struct err *err)
{
    if (*path != '/')
        return err_set(err, ERR_INVALID, "the path does not begin with '/'");
    char *rest = path + 1;
    while (rest) {
        char *segment = strsep(&rest, "/");
        if (target->segment_count == LIMIT_API_PATH_SEGMENTS)
            return err_set(err, ERR_LIMIT, "the path has more than %d segments", LIMIT_API_PATH_SEGMENTS);
        if (!decode(segment, false))
            return err_set(err, ERR_INVALID, "the path holds a broken %%-escape");
        if (*segment == '\0' || strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
            return err_set(err, ERR_INVALID, "the path holds an empty, '.' or '..' segment");
        target->segments[target->segment_count++] = segment;
    }
    return 0;
}

static int parse_query(char *query, struct api_target *target, struct err *err)
{
    while (query) {
        char *value = strsep(&query, "&");
        char *name = strsep(&value, "=");
        if (*name == '\0' && !value)
            continue;
        if (target->query_count == LIMIT_API_QUERY_FIELDS)
            return err_set(err, ERR_LIMIT, "the query has more than %d fields", LIMIT_API_QUERY_FIELDS);
        if (!decode(name, true) || (value && !decode(value, true)))
            return err_set(err, ERR_INVALID, "the query holds a broken %%-escape");
        target->query[target->query_count].name = name;
        target->query[target->query_count].value = value ? value : "";
        target->query_count++;
    }
    return 0;
}

int api_target_parse(const char *raw, struct api_target *target, struct err *err)
{
    if (strlen(raw) > LIMIT_API_TARGET_BYTES)
        return err_set(err, ERR_LIMIT, "the path and query are longer than %d bytes", LIMIT_API_TARGET_BYTES);
    target->text = strdup(raw);
    if (!target->text)
        return err_set(err, ERR_NOMEM, "out of memory");
    char *query = target->text;
    char *path = strsep(&query, "?");
    int code = parse_segments(path, target, err);
    return code < 0 ? code : parse_query(query, target, err);
}

/* Walks the next segment of a pattern; false at its end. */
static bool next_segment(const char **pattern, const char **ret_at, size_t *ret_len)
{
    if (**pattern != '/')
        return false;
    *ret_at = *pattern + 1;
    *ret_len = strcspn(*ret_at, "/");
    *pattern = *ret_at + *ret_len;
    return true;
}

static bool matches(const struct api_target *target, const char *pattern)
{
    const char *at;
    size_t len, i = 0;
    while (next_segment(&pattern, &at, &len)) {
        if (i == target->segment_count)
            return false;
        const char *segment = target->segments[i++];
        if (*at != '{' && (strlen(segment) != len || memcmp(segment, at, len) != 0))
            return false;
    }
    return i == target->segment_count;
}

int api_target_route(struct api_target *target, const char *method, const struct api_route *routes, size_t route_count,
                     char allow[API_ALLOW_SIZE], struct err *err)
{
    size_t used = 0;
    allow[0] = '\0';
    for (size_t i = 0; i < route_count; i++) {
        if (!matches(target, routes[i].path))
            continue;
        if (strcmp(method, routes[i].method) == 0) {
            target->route = &routes[i];
            return 0;
        }
        if (used < API_ALLOW_SIZE)
            used += (size_t)snprintf(allow + used, API_ALLOW_SIZE - used, "%s%s", used ? ", " : "", routes[i].method);
    }
    if (used)
        return err_set(err, ERR_UNSUPPORTED, "this path does not take the method; it takes %s", allow);
    return err_set(err, ERR_NOTFOUND, "no such path; the paths begin with " API_VERSION_PREFIX "/");
}

const char *api_target_param(const struct api_target *target, const char *name)
{
    const char *pattern = target->route ? target->route->path : "";
    const char *at;
    size_t len, i = 0;
    for (; next_segment(&pattern, &at, &len); i++) {
        if (len == strlen(name) + 2 && *at == '{' && memcmp(at + 1, name, len - 2) == 0)
            return target->segments[i];
    }
    return NULL;
}

const char *api_target_query(const struct api_target *target, const char *name)
{
    for (size_t i = 0; i < target->query_count; i++) {
        if (strcmp(target->query[i].name, name) == 0)
            return target->query[i].value;
    }
    return NULL;
}
