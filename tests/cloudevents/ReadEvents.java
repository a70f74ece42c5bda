import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.KafkaMessageFactory;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.kafka.common.header.internals.RecordHeaders;

/** Reads messages as a consumer with the CloudEvents SDK of Java does: see README.md. */
class ReadEvents {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line; (line = lines.readLine()) != null; ) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                answer.set("attributes", read(JSON.readTree(line)));
            } catch (Exception | StackOverflowError error) {
                answer.put("refused", error + (error.getCause() == null ? "" : ": " + error.getCause()));
            }
            answers.println(answer);
            answers.flush();
        }
    }

    private static ObjectNode read(JsonNode message) throws Exception {
        var headers = new RecordHeaders();
        message.get("headers").fields().forEachRemaining(
                header -> headers.add(header.getKey(), header.getValue().asText().getBytes(StandardCharsets.UTF_8)));
        byte[] value = Base64.getDecoder().decode(message.get("value").asText());
        CloudEvent event = KafkaMessageFactory.createReader(headers, value).toEvent();
        ObjectNode attributes = JSON.createObjectNode();
        for (String name : event.getAttributeNames()) {
            attributes.put(name, event.getAttribute(name).toString());
        }
        for (String name : event.getExtensionNames()) {
            attributes.put(name, event.getExtension(name).toString());
        }
        if (event.getDataContentType().equals("application/json")) {
            JSON.readTree(event.getData().toBytes());
        }
        return attributes;
    }
}
