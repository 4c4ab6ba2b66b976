
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_status_json.h"
#include "ngx_http_iothub_sas.h"


static void ngx_http_iothub_status_json_hub(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_status_json_webhooks(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_counts_t *counts);
static void ngx_http_iothub_status_json_results(ngx_http_iothub_report_t *rep,
    const char *name, uint64_t *counts);
static void ngx_http_iothub_status_json_calls(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_counts_t *counts);
static void ngx_http_iothub_status_json_histogram(ngx_http_iothub_report_t *rep,
    const char *name, ngx_http_iothub_metrics_histogram_t *h);
static void ngx_http_iothub_status_json_identities(
    ngx_http_iothub_report_t *rep, ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_status_json_gates(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_status_json_key(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s);
static void ngx_http_iothub_status_json_time(ngx_http_iothub_report_t *rep,
    time_t when);
static void ngx_http_iothub_status_json_error(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_error_t *error);
static void ngx_http_iothub_status_json_field(ngx_http_iothub_report_t *rep,
    const char *name, u_char *field, size_t size);


void
ngx_http_iothub_status_json(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *snapshots, ngx_uint_t n,
    ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_metrics_counts_t *hubless)
{
    ngx_uint_t  i;

    ngx_http_iothub_report_text(rep, "{\"version\":\"%s\",\"nginx\":\"%s\","
                                "\"openssl\":\"%s\",\"time\":",
                                NGX_HTTP_IOTHUB_VERSION, NGINX_VERSION,
                                ngx_http_iothub_sas_library());
    ngx_http_iothub_status_json_time(rep, ngx_time());
    ngx_http_iothub_report_text(rep, ",\n\"hubs\":{");

    for (i = 0; i < n; i++) {
        ngx_http_iothub_report_text(rep, i ? ",\n" : "\n");
        ngx_http_iothub_status_json_hub(rep, &snapshots[i]);
    }

    ngx_http_iothub_report_text(rep, "}");

    if (hubless) {
        ngx_http_iothub_report_text(rep, ",\n");
        ngx_http_iothub_status_json_webhooks(rep, hubless);
    }

    ngx_http_iothub_report_text(rep, "}\n");
}


static void
ngx_http_iothub_status_json_hub(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, "\"%V\":{\"hostname\":\"%V\","
                        "\"usable\":%s,\"result\":\"%V\",\n ",
                        &s->hub->name, &s->hub->registry.host,
                        s->unusable ? "false" : "true",
                        &ngx_http_iothub_results[s->unusable].word);

    ngx_http_iothub_status_json_webhooks(rep, &s->counts);
    ngx_http_iothub_status_json_results(rep, ",\n \"events\":",
                                        s->counts.events);
    ngx_http_iothub_status_json_results(rep, ",\n \"deliveries\":",
                                        s->counts.deliveries);
    ngx_http_iothub_status_json_histogram(rep, ",\n \"delivery_seconds\":",
                                          &s->counts.delivery_time);

    ngx_http_iothub_report_text(rep, ",\n \"last_delivered\":");

    if (s->counts.delivered) {
        ngx_http_iothub_report_text(rep, "{\"time\":");
        ngx_http_iothub_status_json_time(rep, s->counts.delivered);
        ngx_http_iothub_report_text(rep, ",\"age\":%T}",
                         ngx_http_iothub_report_age(s->counts.delivered));

    } else {
        ngx_http_iothub_report_text(rep, "null");
    }

    ngx_http_iothub_status_json_calls(rep, &s->counts);

    ngx_http_iothub_report_text(rep, ",\n \"retries\":%uL,"
                                "\"message_blocks\":%uL",
                                s->counts.retries, s->counts.blocks);

    ngx_http_iothub_status_json_identities(rep, s);
    ngx_http_iothub_status_json_gates(rep, s);
    ngx_http_iothub_status_json_key(rep, s);
    ngx_http_iothub_status_json_error(rep, &s->error);

    ngx_http_iothub_report_text(rep, "}");
}


/* only what has been counted */

static void
ngx_http_iothub_status_json_webhooks(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_counts_t *counts)
{
    uint64_t     sum;
    ngx_uint_t   i, n;
    const char  *separator;

    separator = "";

    ngx_http_iothub_report_text(rep, "\"webhooks\":{");

    for (n = 0; n < NGX_HTTP_IOTHUB_SOURCES; n++) {

        for (i = 0, sum = 0; i < NGX_HTTP_IOTHUB_RESULTS; i++) {
            sum += counts->webhooks[n][i];
        }

        if (sum == 0) {
            continue;
        }

        ngx_http_iothub_report_text(rep, "%s\"%V\":", separator,
                                    ngx_http_iothub_source_name(n));
        ngx_http_iothub_status_json_results(rep, "", counts->webhooks[n]);
        separator = ",";
    }

    ngx_http_iothub_report_text(rep, "}");
}


static void
ngx_http_iothub_status_json_results(ngx_http_iothub_report_t *rep,
    const char *name, uint64_t *counts)
{
    ngx_uint_t   i;
    const char  *separator;

    separator = "";

    ngx_http_iothub_report_text(rep, "%s{", name);

    for (i = NGX_HTTP_IOTHUB_DELIVERED; i < NGX_HTTP_IOTHUB_RESULTS; i++) {

        if (counts[i]) {
            ngx_http_iothub_report_text(rep, "%s\"%V\":%uL", separator,
                                        &ngx_http_iothub_results[i].word,
                                        counts[i]);
            separator = ",";
        }
    }

    ngx_http_iothub_report_text(rep, "}");
}


static void
ngx_http_iothub_status_json_calls(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_counts_t *counts)
{
    ngx_uint_t   i, n;
    const char  *separator;

    ngx_http_iothub_report_text(rep, ",\n \"calls\":{");

    for (n = 0; n < NGX_HTTP_IOTHUB_METRICS_OPERATIONS; n++) {

        ngx_http_iothub_report_text(rep, "%s\"%s\":{", n ? "," : "",
                                    ngx_http_iothub_metrics_operations[n]);
        separator = "";

        for (i = 0; i < NGX_HTTP_IOTHUB_METRICS_STATUSES; i++) {

            if (counts->calls[n][i]) {
                ngx_http_iothub_report_text(rep, "%s\"%s\":%uL", separator,
                                    ngx_http_iothub_metrics_statuses[i].text,
                                    counts->calls[n][i]);
                separator = ",";
            }
        }

        ngx_http_iothub_report_text(rep, "}");
    }

    ngx_http_iothub_report_text(rep, "},\n \"call_seconds\":{");

    for (n = 0; n < NGX_HTTP_IOTHUB_METRICS_OPERATIONS; n++) {
        ngx_http_iothub_report_text(rep, "%s\"%s\":", n ? ",\n  " : "",
                                    ngx_http_iothub_metrics_operations[n]);
        ngx_http_iothub_status_json_histogram(rep, "", &counts->call_time[n]);
    }

    ngx_http_iothub_report_text(rep, "}");
}


/* cumulative, as Prometheus has them */

static void
ngx_http_iothub_status_json_histogram(ngx_http_iothub_report_t *rep,
    const char *name, ngx_http_iothub_metrics_histogram_t *h)
{
    uint64_t    sum;
    ngx_uint_t  i;

    ngx_http_iothub_report_text(rep, "%s{\"le\":{", name);

    for (i = 0, sum = 0; i < NGX_HTTP_IOTHUB_METRICS_BOUNDS; i++) {
        sum += h->counts[i];
        ngx_http_iothub_report_text(rep, "\"%s\":%uL,",
                                    ngx_http_iothub_metrics_bounds[i].text,
                                    sum);
    }

    sum += h->counts[i];

    ngx_http_iothub_report_text(rep, "\"+Inf\":%uL},\"sum\":%uL.%03uL,"
                                "\"count\":%uL}", sum, h->sum / 1000,
                                h->sum % 1000, sum);
}


static void
ngx_http_iothub_status_json_identities(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, ",\n \"identities\":{\"created\":%uL,"
                        "\"known\":%uL,\"settling\":%uL,\"blocked\":%uL,"
                        "\"evicted\":%uL,\"capacity\":%uL},"
                        "\"creation_backlog\":%M.%03M",
                        s->counts.created, s->identities.known,
                        s->identities.settling, s->identities.blocked,
                        s->identities.evicted, s->identities.capacity,
                        s->backlog / 1000, s->backlog % 1000);
}


static void
ngx_http_iothub_status_json_gates(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_uint_t                      i;
    ngx_http_iothub_report_gate_t  *gate;

    ngx_http_iothub_report_text(rep, ",\n \"gates\":{");

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        gate = &s->gates[i];

        ngx_http_iothub_report_text(rep, "%s\"%s\":{\"closed\":%s",
                                    i ? "," : "",
                                    ngx_http_iothub_throttle_gate_name(i),
                                    gate->closed ? "true" : "false");

        if (gate->closed) {
            ngx_http_iothub_report_text(rep, ",\"seconds\":%M.%03M,"
                              "\"result\":\"%V\"", gate->left / 1000,
                              gate->left % 1000,
                              &ngx_http_iothub_results[gate->reason].word);
        }

        ngx_http_iothub_report_text(rep, "}");
    }

    ngx_http_iothub_report_text(rep, "}");
}


static void
ngx_http_iothub_status_json_key(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_snapshot_t *s)
{
    ngx_http_iothub_report_text(rep, ",\n \"key\":\"%s\",\"keys\":%ui,"
                                "\"token_age\":",
                                s->key ? "secondary" : "primary",
                                s->hub->nkeys);

    if (s->counts.signed_at) {
        ngx_http_iothub_report_text(rep, "%T",
                         ngx_http_iothub_report_age(s->counts.signed_at));

    } else {
        ngx_http_iothub_report_text(rep, "null");
    }
}


static void
ngx_http_iothub_status_json_time(ngx_http_iothub_report_t *rep, time_t when)
{
    ngx_tm_t  tm;

    ngx_gmtime(when, &tm);

    ngx_http_iothub_report_text(rep, "\"%4d-%02d-%02dT%02d:%02d:%02dZ\"",
                                tm.ngx_tm_year, tm.ngx_tm_mon,
                                tm.ngx_tm_mday, tm.ngx_tm_hour,
                                tm.ngx_tm_min, tm.ngx_tm_sec);
}


static void
ngx_http_iothub_status_json_error(ngx_http_iothub_report_t *rep,
    ngx_http_iothub_metrics_error_t *error)
{
    ngx_http_iothub_report_text(rep, ",\n \"last_error\":");

    if (error->time == 0) {
        ngx_http_iothub_report_text(rep, "null");
        return;
    }

    ngx_http_iothub_report_text(rep, "{\"time\":");
    ngx_http_iothub_status_json_time(rep, error->time);
    ngx_http_iothub_report_text(rep, ",\"age\":%T,\"result\":\"%V\","
                                "\"status\":%ui",
                                ngx_http_iothub_report_age(error->time),
                                &ngx_http_iothub_results[error->result].word,
                                error->status);

    ngx_http_iothub_status_json_field(rep, "step", error->step,
                                      sizeof(error->step));
    ngx_http_iothub_status_json_field(rep, "device", error->device,
                                      sizeof(error->device));
    ngx_http_iothub_status_json_field(rep, "error", error->error,
                                      sizeof(error->error));
    ngx_http_iothub_status_json_field(rep, "request_id", error->request_id,
                                      sizeof(error->request_id));
    ngx_http_iothub_status_json_field(rep, "detail", error->detail,
                                      sizeof(error->detail));

    ngx_http_iothub_report_text(rep, "}");
}


static void
ngx_http_iothub_status_json_field(ngx_http_iothub_report_t *rep,
    const char *name, u_char *field, size_t size)
{
    ngx_str_t  text, string;

    text = ngx_http_iothub_report_field(field, size);

    if (ngx_http_iothub_report_escape(rep, &string, &text) == NGX_OK) {
        ngx_http_iothub_report_text(rep, ",\"%s\":\"%V\"", name, &string);
    }
}
