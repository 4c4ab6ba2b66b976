
/* Copyright (C) the ngx_http_iothub_module authors */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_source.h"


/* a member of the JSON root, a pair of the form or of the query */

#define ngx_http_iothub_name(name)                                           \
    { NGX_HTTP_IOTHUB_LOCATOR_NAME, ngx_string(name), NULL, 0 }


static const ngx_http_iothub_source_t  ngx_http_iothub_sources[] = {

    { ngx_string("particle"),
      NGX_HTTP_POST|NGX_HTTP_PUT|NGX_HTTP_GET,
      ngx_string("POST, PUT, GET"),
      15000,
      { ngx_http_iothub_name("coreid"),
        ngx_http_iothub_name("event"),
        ngx_http_iothub_name("data"),
        ngx_http_iothub_name("published_at"),
        ngx_http_iothub_name("event_id"),
        ngx_http_iothub_name("fw_version") } },
};


const ngx_http_iothub_source_t *
ngx_http_iothub_source_find(ngx_str_t *name)
{
    ngx_uint_t  i, n;

    n = sizeof(ngx_http_iothub_sources) / sizeof(ngx_http_iothub_source_t);

    for (i = 0; i < n; i++) {
        if (ngx_http_iothub_sources[i].name.len == name->len
            && ngx_strncmp(ngx_http_iothub_sources[i].name.data, name->data,
                           name->len)
               == 0)
        {
            return &ngx_http_iothub_sources[i];
        }
    }

    return NULL;
}


const ngx_http_iothub_source_t *
ngx_http_iothub_source_default(void)
{
    return &ngx_http_iothub_sources[0];
}
