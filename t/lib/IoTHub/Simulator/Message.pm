# Copyright (C) the ngx_http_iothub_module authors

# Device-to-cloud messages: what a request to /devices/{id}/messages/events
# holds, and whether the hub takes it.
#
# https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct

package IoTHub::Simulator::Message;

use v5.36;
use strict;
use warnings;

use Exporter qw(import);
use MIME::Base64 qw(decode_base64);

use IoTHub::Simulator::JSON qw(json_decode);

our @EXPORT_OK = qw(message_single message_batch is_batch);

use constant {
    SIZE_MAX   => 256 * 1024,
    BATCH_TYPE => 'application/vnd.microsoft.iothub.json',
};

# Header -> name of the system property.

my %SYSTEM = map { ("iothub-$_" => $_) } qw(messageid correlationid userid to
    contenttype contentencoding creationtimeutc expiry ack interface-id
    operation messageschema);
$SYSTEM{'iothub-creation-time-utc'} = 'creationtimeutc';
$SYSTEM{'dt-subject'}               = 'dt-subject';

# Property names that the hub keeps to itself (MessageProperty of the Java
# SDK).

my %RESERVED = map { lc $_ => 1 } (
    map({ "iothub-$_" } qw(enqueuedtime messagelocktoken sequencenumber
        operation partition-key ack connection-auth-method
        connection-auth-generation-id messageid correlationid userid to
        contenttype contentencoding content-type content-encoding
        absolute-expiry-time methodname outputname inputname
        connection-device-id connection-module-id)),
    qw(connectionDeviceId connectionModuleId),
);

my $MESSAGE_ID = qr/^[A-Za-z0-9\-:.+%_#*?!(),=\@;\$']{1,128}\z/;
my $NAME       = qr/^[!#\$%&'*+\-.^_`|~A-Za-z0-9]+\z/;
my $VALUE      = qr/^[\t\x20-\x7e]*\z/;
my $UTC_TIME   = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,7})?Z\z/;
my $BASE64     = qr{^(?:[A-Za-z0-9+/]{4})*
                    (?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\z}x;


sub is_batch($content_type) {
    return lc($content_type =~ s/\s*;.*//sr) eq BATCH_TYPE;
}


# Both return (messages, undef) with messages an array of { body, system,
# properties }, or (undef, [code, text]).

sub message_single($list, $body) {
    my ($message, $error) = read_message($body,
        [grep { $_->[0] =~ /^(?:iothub-|dt-subject\z)/i } @$list]);
    return (undef, $error) if $error;
    return check_size([$message]);
}


sub message_batch($list, $body) {
    return refuse(413001) if length $body > SIZE_MAX;

    my $entries = json_decode($body);
    return refuse(400006, 'The batch is not a JSON array.')
        unless ref $entries eq 'ARRAY' && @$entries;

    my @messages;
    for my $entry (@$entries) {
        my ($message, $error) = read_entry($entry);
        return (undef, $error) if $error;
        push @messages, $message;
    }

    return check_size(\@messages);
}


sub read_entry($entry) {
    return refuse(400006, 'A message of the batch is not an object.')
        unless ref $entry eq 'HASH';

    my $body = $entry->{body};
    return refuse(400006, 'A body of the batch is not a string.')
        if !defined $body || ref $body;

    my $encoded = $entry->{base64Encoded} // 1;
    if ($encoded) {
        return refuse(400006, 'A body of the batch is not base64.')
            unless $body =~ $BASE64;
        $body = decode_base64($body);
    } else {
        utf8::encode($body);
    }

    my $properties = $entry->{properties} // {};
    return refuse(400006, 'properties is not an object.')
        unless ref $properties eq 'HASH';

    my @list;
    for my $name (sort keys %$properties) {
        my $value = $properties->{$name};
        return refuse(400006, 'The value of a property is not a string.')
            if !defined $value || ref $value;
        return refuse(400004, "'$name' is not a property of a message.")
            unless $name =~ /^iothub-app-/i || $SYSTEM{ lc $name };
        push @list, [$name, $value];
    }

    return read_message($body, \@list);
}


sub read_message($body, $list) {
    my (%system, %properties, %spelling);

    for my $header (@$list) {
        my ($name, $value) = @$header;

        if ($name =~ /^iothub-app-(.*)\z/is) {
            my $property = $1;
            return refuse(400004, 'The name of a property is not legal.')
                unless $property =~ $NAME;
            return refuse(400004, "The property '$property' is reserved.")
                if $RESERVED{ lc $property };
            return refuse(400004, "The value of '$property' is not legal.")
                unless $value =~ $VALUE;

            # headers of one name are one header, as HTTP has it
            $property = $spelling{ lc $property } //= $property;
            $properties{$property} = defined $properties{$property}
                ? "$properties{$property}, $value" : $value;

        } elsif (my $known = $SYSTEM{ lc $name }) {
            return refuse(400004, "The value of $name is not legal.")
                unless $value =~ $VALUE;
            $system{$known} = $value;
        }
    }

    my $error = check_system(\%system);
    return (undef, $error) if $error;

    return ({ body => $body, system => \%system,
        properties => \%properties }, undef);
}


sub check_system($system) {
    my $id = $system->{messageid};
    return [400004, 'The message id is not legal.']
        if defined $id && $id !~ $MESSAGE_ID;

    my $time = $system->{creationtimeutc};
    return [400004, 'The creation time is not ISO 8601 in UTC.']
        if defined $time && $time !~ $UTC_TIME;

    my $type     = $system->{contenttype} // '';
    my $encoding = $system->{contentencoding};
    return [400103, 'The encoding is none that JSON can have.']
        if defined $encoding
        && $type =~ m{^application/json\s*(?:;|\z)}i
        && $encoding !~ /^utf-(?:8|16|32)\z/i;

    return undef;
}


# Body, values of system properties, names and values of the others, of all
# messages together.

sub check_size($messages) {
    my $size = 0;

    for my $message (@$messages) {
        $size += length $message->{body};
        $size += length for values %{ $message->{system} };
        $size += length for %{ $message->{properties} };
    }

    return refuse(413001) if $size > SIZE_MAX;
    return ($messages, undef);
}


sub refuse($code, $text = undef) { return (undef, [$code, $text]) }

1;
