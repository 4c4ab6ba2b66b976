
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_outcome.h"


const ngx_http_iothub_result_t
    ngx_http_iothub_results[NGX_HTTP_IOTHUB_RESULTS] =
{
    { ngx_string("-"), 500, 0, 0, 0,
      ngx_string("Internal error") },

    { ngx_string("delivered"), 0, 1, 0, 0,
      ngx_string("Delivered") },

    { ngx_string("filtered"), 0, 1, 0, 0,
      ngx_string("Filtered") },

    { ngx_string("unauthorized"), 401, 0, 0, 0,
      ngx_string("Sender not allowed") },

    { ngx_string("method_not_allowed"), 405, 0, 0, 0,
      ngx_string("Method not allowed") },

    { ngx_string("unsupported_media_type"), 415, 0, 0, 0,
      ngx_string("Unsupported media type") },

    { ngx_string("malformed"), 400, 0, 1, 0,
      ngx_string("Malformed webhook") },

    { ngx_string("rejected"), 422, 0, 1, 0,
      ngx_string("Event rejected") },

    { ngx_string("too_large"), 413, 0, 1, 0,
      ngx_string("Event too large") },

    { ngx_string("blocked"), 422, 0, 1, 0,
      ngx_string("Device blocked") },

    { ngx_string("refused"), 422, 0, 1, 0,
      ngx_string("Event refused by the hub") },

    { ngx_string("throttled"), 503, 0, 0, 1,
      ngx_string("Hub throttled") },

    { ngx_string("creation_limited"), 503, 0, 0, 1,
      ngx_string("Identity creation limited") },

    { ngx_string("quota"), 503, 0, 0, 1,
      ngx_string("Hub quota spent") },

    { ngx_string("unavailable"), 503, 0, 0, 1,
      ngx_string("Hub unavailable") },

    { ngx_string("credentials"), 503, 0, 0, 1,
      ngx_string("Hub refused the credentials") },

    { ngx_string("misconfigured"), 503, 0, 0, 1,
      ngx_string("Gateway or hub misconfigured") },

    { ngx_string("timeout"), 504, 0, 0, 0,
      ngx_string("Deadline passed, outcome unknown") },
};
