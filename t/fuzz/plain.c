
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the plain room: whatever it takes for JSON, jansson does,
 * and it takes all of it.  An input is the text.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <jansson.h>

#include "ngx_http_iothub_plain.h"


#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t        *json;
    ngx_str_t      text;
    json_error_t   error;

    /* a buffer of exact size, so that a step out of it is seen */

    text.len = size;
    text.data = malloc(size ? size : 1);
    must(text.data != NULL);

    if (size) {
        ngx_memcpy(text.data, data, size);
    }

    if (ngx_http_iothub_plain_json(&text)) {
        must(memchr(text.data, '\0', size) == NULL);

        json = json_loadb((char *) text.data, size,
                          JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL,
                          &error);

        must(json != NULL);
        must(json_is_object(json) || json_is_array(json));

        json_decref(json);
    }

    free(text.data);

    return 0;
}
