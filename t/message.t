#!/usr/bin/perl

# What a message is made of: ids, times, properties, templates and fields that
# the configuration sets, and that nothing can be smuggled into a header.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my $form = 'application/x-www-form-urlencoded';
my $json = 'application/json';

$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;
    client_max_body_size 2m;

    log_format fields '$iothub_device_id|$iothub_event|$iothub_published_at|'
                      '$iothub_data|$iothub_hub|$iothub_result|$iothub_tries|'
                      '$iothub_hub_status|$iothub_identity|$iothub_detail';
    access_log %%TESTDIR%%/access.log fields;

    iothub_property event $iothub_event;
    iothub_property fixed text;

    map $iothub_event $kind { ~^temp climate; default other; }
    map $iothub_event $wanted { ~^skip 0; default 1; }

    limit_req_zone $iothub_device_id zone=device:1m rate=1r/m;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }

        location /own {
            iothub_property kind $kind;
            iothub_property Empty "";
            iothub_property client $http_x_client;
            iothub_pass contoso;
        }

        location /json { iothub_data_as json; iothub_pass contoso; }

        location /fields {
            iothub_device_id "dev-$iothub_device_id";
            iothub_event "to/$iothub_event";
            iothub_data "<$iothub_data>";
            iothub_published_at "2020-02-02T02:02:02+02:00";
            iothub_message_id "$iothub_message_id:1";
            iothub_pass contoso;
        }

        location /match { iothub_match temp hum/; iothub_pass contoso; }
        location /filter { iothub_filter $wanted 1; iothub_pass contoso; }
        location /accepted { iothub_accepted 202; iothub_pass contoso; }

        location /template {
            iothub_message '{"id":"$iothub_device_id","v":$iothub_data,"k":"$kind"}';
            iothub_pass contoso;
        }

        location /whole { iothub_message $iothub_body; iothub_pass contoso; }

        location /none {
            iothub_message escape=none '{"v":$iothub_data}';
            iothub_pass contoso;
        }

        location /text {
            iothub_message escape=none "$iothub_data";
            iothub_content_type text/plain;
            iothub_content_encoding "";
            iothub_pass contoso;
        }

        location /limited { limit_req zone=device; iothub_pass contoso; }
        location /early { if ($iothub_event = stop) { return 409; }
                          iothub_pass contoso; }
    }

CONF

my $last = 0;


sub arrived {
    my @messages = grep { $_->{n} > $last } $hub->messages;

    $last = $messages[-1]{n} if @messages;

    return @messages == 1 ? $messages[0] : {};
}


sub json { return $t->post($_[0], $_[1], 'Content-Type' => $json) }
sub form { return $t->post($_[0], $_[1], 'Content-Type' => $form) }


sub message_id {
    form('/', $_[0]);
    return arrived()->{system}{messageid};
}


subtest 'message id' => sub {
    my $time = 'published_at=2017-02-01T21:08:05.763Z';

    is(message_id("coreid=a&event=e&event_id=Ab-1:.%2B%25_%23*?!(),=@;\$'"),
       q(Ab-1:.+%_#*?!(),=@;$'), 'given, each character that may be in it');

    like(message_id('coreid=a&event=e&event_id=has%20blank'),
         qr/^[0-9a-f]{64}$/, 'given and not acceptable: its hash');
    like(message_id('coreid=a&event=e&event_id=' . 'x' x 129),
         qr/^[0-9a-f]{64}$/, 'given and too long: its hash');

    my $id = message_id("coreid=a&event=e&data=1&$time");

    like($id, qr/^[0-9a-f]{64}$/, 'not given: a hash');
    is(message_id("data=1&$time&coreid=a&event=e"), $id, 'of a repeat');
    isnt(message_id("coreid=a&event=e&data=2&$time"), $id, 'other data');
    isnt(message_id("coreid=b&event=e&data=1&$time"), $id, 'other device');
    isnt(message_id("coreid=a&event=f&data=1&$time"), $id, 'other event');
    isnt(message_id("coreid=a&event=ed&data=1&$time"),
         message_id("coreid=a&event=e&data=d1&$time"), 'no moving of bytes');

    my @random = map { message_id("coreid=a&event=e&data=1&$_") }
        ('published_at=2017-02-01T21:08:05Z') x 2, ('x=1') x 2;

    like($_, qr/^[0-9a-f]{32}$/, 'no sub-second time: random') for @random;
    my %seen = map { $_ => 1 } @random;
    is(keys %seen, 4, 'each time another');
};


subtest 'creation time' => sub {
    my %time = (
        '2017-02-01T21:08:05.763Z' => '2017-02-01T21:08:05.763Z',
        '2017-02-01T21:08:05Z' => '2017-02-01T21:08:05.000Z',
        '2017-02-01T23:08:05.7639+02:00' => '2017-02-01T21:08:05.763Z',
        '2017-02-01T19:38:05-0130' => '2017-02-01T21:08:05.000Z',
        '1485983285' => '2017-02-01T21:08:05.000Z',
        '1485983285763' => '2017-02-01T21:08:05.763Z',
        '2017-02-30T00:00:00Z' => undef,
        'yesterday' => undef,
    );

    for my $time (sort keys %time) {
        json('/', qq({"coreid":"a","event":"e","published_at":"$time"}));

        my $message = arrived();

        is($message->{system}{creationtimeutc}, $time{$time},
           "time $time");
        like($message->{body}, qr/"published_at":"\Q$time\E"/,
             "$time: the body keeps the sender's text");
    }
};


subtest 'properties' => sub {
    form('/', 'coreid=a&event=temp/1');
    is_deeply(arrived()->{properties}, { event => 'temp/1', fixed => 'text' },
              'inherited');

    $t->post('/own', 'coreid=a&event=temp/1', 'Content-Type' => $form,
             'X-Client' => "a b;\t\"c\"");
    is_deeply(arrived()->{properties},
              { kind => 'climate', client => "a b;\t\"c\"" },
              'own ones replace them, an empty one is left out');

    for my $event ("caf%C3%A9", '%F0%9F%98%80') {
        my $answer = form('/', "coreid=a&event=$event");

        is($answer->{status}, 422, "$event in a property");
        like($answer->{body}, qr/"code":"rejected"/, 'rejected');
        is_deeply(arrived(), {}, 'not sent');
    }

    is(form('/own', "coreid=a&event=caf%C3%A9")->{status}, 204,
       'a name that goes into no header may be any text');
    is(arrived()->{body} =~ /"event":"caf\xc3\xa9"/, 1, 'as it is');
};


subtest 'nothing is smuggled into a header' => sub {
    my $evil = '%0d%0aiothub-app-evil:%20yes%0d%0a';

    for my $field (qw(coreid event published_at event_id data fw_version)) {
        my %f = (coreid => 'a', event => 'e');
        $f{$field} = ($f{$field} // '') . $evil;

        for my $uri (qw(/ /own /fields /template)) {
            form($uri, join '&', map { "$_=$f{$_}" } sort keys %f);

            my @lines = map { @{ $_->{header_list} } } $hub->journal;

            is(scalar(grep { $_->[0] =~ /evil/i || $_->[1] =~ /[\r\n]/ }
                      @lines), 0, "$field to $uri");
        }
    }

    $last = ($hub->messages)[-1]{n};
};


subtest 'fields' => sub {
    form('/fields', 'coreid=a&event=e&data=5&event_id=x');

    my $message = arrived();

    is($message->{device}, 'dev-a', 'device id');
    is($message->{system}{messageid}, 'x:1', 'message id');
    is($message->{system}{creationtimeutc}, '2020-02-02T00:02:02.000Z',
       'time');
    is($message->{body}, '{"data":"<5>","device_id":"dev-a","event":"to/e",'
       . '"published_at":"2020-02-02T02:02:02+02:00"}', 'body');
    is($message->{properties}{event}, 'to/e', 'in a property');

    ok($t->wait_for_log(qr{^dev-a\|to/e\|2020-02-02T02:02:02\+02:00\|<5>\|}m,
                        file => 'access.log'), 'and in the log');
};


subtest 'device ids' => sub {
    my $id = q(A-.:+%_#*?!(),=@;$'z);
    (my $encoded = $id) =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;

    for my $id ($id, 'CaSe', 'case', 'x' x 128) {
        json('/', qq({"coreid":"$id","event":"e"}));
        is(arrived()->{device}, $id, "exactly: $id");
    }

    my ($call) = $hub->journal(op => 'send', device => $id);

    is($call->{uri}, '/devices/A-.%3A%2B%25_%23%2A%3F%21%28%29%2C%3D%40%3B%24'
       . '%27z/messages/events?api-version=2021-04-12', 'escaped in the path');
};


subtest 'iothub_data_as json' => sub {
    my %data = (
        '"{\"a\":[1,2.50]}"' => '{"a":[1,2.50]}',
        '"70"' => '70',
        '" true "' => 'true',
        '"seventy"' => '"seventy"',
        '"{broken"' => '"{broken"',
        '"1e400"' => '"1e400"',
        '{"b":1}' => '{"b":1}',
        '""' => '""',
    );

    for my $data (sort keys %data) {
        json('/json', qq({"coreid":"a","event":"e","data":$data}));
        like(arrived()->{body}, qr/^\{"data":\Q$data{$data}\E,"device_id"/,
             $data);
    }
};


subtest 'filters' => sub {
    is(form('/match', "coreid=a&event=$_")->{status}, 204, $_)
        for qw(temperature temp hum/1);
    is(scalar(grep { $_->{n} > $last } $hub->messages), 3, 'sent');
    $last = ($hub->messages)[-1]{n};

    for my $event (qw(high_temp Temp hum te)) {
        is(form('/match', "coreid=a&event=$event")->{status}, 204,
           "$event: accepted");
        is_deeply(arrived(), {}, "$event: not sent");
    }

    is(form('/match', 'coreid=a')->{status}, 422, 'no name: rejected');
    is(form('/filter', 'coreid=a&event=skip/1')->{status}, 204, 'filtered');
    is_deeply(arrived(), {}, 'not sent');
    is(form('/filter', 'coreid=a&event=keep')->{status}, 204, 'not filtered');
    is(arrived()->{device}, 'a', 'sent');
    is(form('/accepted', 'coreid=a&event=e')->{status}, 202,
       'iothub_accepted');
    arrived();
};


subtest 'templates' => sub {
    json('/template', '{"coreid":"a","event":"temp","data":{"x":[1.50]}}');
    is(arrived()->{body}, '{"id":"a","v":{"x":[1.50]},"k":"climate"}',
       'JSON outside of quotes');

    form('/template', 'coreid=a&event=e&data=say%20"hi"%0A');
    is(arrived()->{body}, '{"id":"a","v":"say \"hi\"\n","k":"other"}',
       'a text outside of quotes');

    my $body = ' { "coreid" : "a", "event":"e", "n" : 1e2 } ';
    json('/whole', $body);
    is(arrived()->{body}, $body =~ s/^\s+|\s+$//gr, 'the whole webhook');

    is(form('/none', 'coreid=a&event=e&data=oops')->{status}, 422,
       'no JSON is rejected');
    is_deeply(arrived(), {}, 'not sent');

    form('/text', 'coreid=a&event=e&data=plain%20"text"');
    my $message = arrived();
    is($message->{body}, 'plain "text"', 'text');
    is($message->{system}{contenttype}, 'text/plain', 'content type');
    is($message->{system}{contentencoding}, undef, 'no content encoding');
};


subtest 'size' => sub {
    my $fits = 262144 - 800;

    is(form('/', 'coreid=a&event=e&data=' . 'x' x $fits)->{status}, 204,
       'just below 256 KB');
    is(length(arrived()->{body}) > $fits, 1, 'whole');

    my $answer = form('/', 'coreid=a&event=e&data=' . 'x' x 262144);

    is($answer->{status}, 413, 'above 256 KB');
    like($answer->{body}, qr/"code":"too_large"/, 'too_large');
    is_deeply(arrived(), {}, 'not sent');
};


subtest 'before the body' => sub {
    is($t->get('/limited?coreid=lim&event=e')->{status}, 204, 'first');
    is($t->get('/limited?coreid=lim&event=e')->{status}, 503, 'limit_req');
    is($t->get('/limited?coreid=lim2&event=e')->{status}, 204, 'another');
    is($t->get('/early?coreid=a&event=stop')->{status}, 409, 'if');
    is(form('/early', 'coreid=a&event=stop')->{status}, 204,
       'a body is not known there');

    ok($t->wait_for_log(qr{^a\|stop\|}m, file => 'access.log'),
       'but afterwards');
};

$t->done;
