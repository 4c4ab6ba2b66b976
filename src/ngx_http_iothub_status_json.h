
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * status_json: what iothub_status says, as JSON, for people and scripts.
 */

#ifndef _NGX_HTTP_IOTHUB_STATUS_JSON_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_STATUS_JSON_H_INCLUDED_


#include "ngx_http_iothub_report.h"


/*
 * Writes n snapshots, and the webhooks without a known hub unless hubless is
 * NULL; rep->failed if there is no memory.
 */

void ngx_http_iothub_status_json(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *snapshots, ngx_uint_t n,
    ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_metrics_counts_t *hubless);


#endif /* _NGX_HTTP_IOTHUB_STATUS_JSON_H_INCLUDED_ */
