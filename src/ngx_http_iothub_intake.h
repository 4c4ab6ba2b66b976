
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * intake: the body of a request -> webhook.  Reads the bytes from wherever
 * nginx has put them, and has the webhook room judge them.
 */

#ifndef _NGX_HTTP_IOTHUB_INTAKE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_INTAKE_H_INCLUDED_


#include "ngx_http_iothub_handler.h"


/*
 * Reads and parses the body into ctx->webhook.  NGX_OK; NGX_DONE: the result
 * is set; NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_intake(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);


#endif /* _NGX_HTTP_IOTHUB_INTAKE_H_INCLUDED_ */
